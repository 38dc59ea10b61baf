-- End a job whose records are lost. The remaining records are kept for a person. Its dead letter can't be replayed.
-- Shared: names, prelude, endings
-- ARGV:
--   step
--   member_base    `priority|session|job|`
--   job
--   session
--   lost           what is lost: job | steps | log | memory | session
--   spec           JSON: what is known of the job, if its record is lost
--   letter         JSON of the dead letter; its times are 0, and are filled in
--   failure        JSON
--   repair_text    the answer to open calls, when the job was cancelled
-- Output: {'buried' | 'cancelled' | 'gone', next `job|priority` or ''}
local step, member_base, job, session, lost, spec, letter, failure, repair_text = unpack(ARGV)
check_session()
local now = clock()
if is_damaged(JOB) then redis.call('DEL', JOB) end
local status, cancel = unpack(redis.call('HMGET', JOB, 'status', 'cancel'))
settle_member(member_base .. step)
if has_ended(status) then return { 'gone', '' } end

local ended = cancel and 'cancelled' or 'dead_lettered'
redis.call('HSETNX', JOB, 'spec', spec)
for field, value in pairs({ session = session, max_steps = '1', timeout_ms = '1', created_ms = string.format('%d', now) }) do
  redis.call('HSETNX', JOB, field, value)
end
redis.call('HSET', JOB, 'status', ended, 'failure', failure, 'finished_ms', string.format('%d', now), 'lost', lost)
redis.call('HDEL', JOB, 'waiting', 'cancel')
redis.call('ZADD', JOBS, 'NX', now, job)
redis.call('EXPIRE', JOBS, HELD_S)
redis.call('EXPIRE', JOB, KEPT_S)
redis.pcall('HINCRBY', COUNTERS, 'jobs.' .. ended, 1)
redis.pcall('HINCRBY', COUNTERS, 'records.lost', 1)
if cancel then
  if not pcall(repair, repair_text, member_base) then redis.call('DEL', STEPS) end
  local next_job = hand_over(now, session, job)
  keep_new()
  return { 'cancelled', next_job }
end
local is_readable, row = pcall(read_row, step)
if is_readable and row then write_row(step, 'dead', row.fence, 0, row.attempt, row.losses, mark(row), row.decision) end
if redis.pcall('HSETNX', SESSION, 'active', job) == 1 then redis.call('EXPIRE', SESSION, KEPT_S) end
letter = string.gsub(letter, '_ms":0', '_ms":' .. string.format('%d', now))
redis.call('ZADD', DEAD, now, job)
redis.call('HSET', LETTERS, job, letter)
hold()
return { 'buried', '' }
