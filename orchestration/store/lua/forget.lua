-- Delete a session: its conversation, memory, archive and results, and the texts of its jobs. The records of the jobs stay
-- without texts until they expire: otherwise an idempotency key could run its job twice.
-- Shared: names
-- KEYS:
--   session
--   log
--   waiting
--   results
--   memory
--   archive
--   originals
--   then three for each known job: job, steps, trace
-- ARGV:
--   session_id
--   detail          replaces the detail of a job's failure
-- Output: {'held', active job, its status} nothing changed | {'forgotten', n}: n keys and fields were deleted
local session, first_job = KEYS[1], 8
local session_id, detail = unpack(ARGV)
local active = redis.pcall('HGET', session, 'active')
if type(active) == 'string' then -- otherwise no job has the session, or it is damaged
  -- The active job's key is not declared, but is in the same slot. A job that has expired no longer holds the session.
  local job = job_key(session, active)
  local status = redis.pcall('HGET', job, 'status')
  if type(status) == 'string' then return { 'held', active, status } end
end

local n = 0
for i = 1, first_job - 1 do n = n + redis.call('DEL', KEYS[i]) end
for i = first_job, #KEYS, 3 do
  local job, steps, trace = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local failure = redis.call('HGET', job, 'failure')
  if failure then
    local kept = cjson.decode(failure)
    kept.detail = detail
    redis.call('HSET', job, 'failure', cjson.encode(kept))
  end
  n = n + redis.call('HDEL', job, 'output', 'input', 'waiting') + redis.call('DEL', steps, trace)
  redis.call('HDEL', job, 'digest') -- of the input: a short text could be guessed from it
end
return { 'forgotten', n }
