-- Forget a session: its conversation, memory, archive and results, and what its jobs said. Records of the jobs stay until
-- their retention is over, without words: an idempotency key must not run its job twice because somebody was forgotten.
-- KEYS: 1 session  2 log  3 waiting  4 results  5 memory  6 archive  7 originals, then for each known job 3: job, steps, trace
-- ARGV: 1 session id  2 what stands for the detail of a failure
-- Output: {'held', active job, its status} nothing changed | {'forgotten', n}: so many keys and fields were deleted
local active = redis.call('HGET', KEYS[1], 'active')
if active then
  -- The active job's key is in this slot, though not declared; one that has expired holds nothing any more.
  local job = string.sub(KEYS[1], 1, #KEYS[1] - #ARGV[1] - #'session:') .. 'job:' .. active
  local status = redis.call('HGET', job, 'status')
  if status then return { 'held', active, status } end
end

local n = 0
for i = 1, 7 do n = n + redis.call('DEL', KEYS[i]) end
for i = 8, #KEYS, 3 do
  local failure = redis.call('HGET', KEYS[i], 'failure')
  if failure then
    local kept = cjson.decode(failure)
    kept.detail = ARGV[2]
    redis.call('HSET', KEYS[i], 'failure', cjson.encode(kept))
  end
  n = n + redis.call('HDEL', KEYS[i], 'output', 'input', 'waiting') + redis.call('DEL', KEYS[i + 1], KEYS[i + 2])
end
return { 'forgotten', n }
