-- Discard a dead letter: answer its open calls, and give its session to the next job.
-- Shared: names, prelude, endings
-- ARGV:
--   job
--   session
--   member_base      `priority|session|job|`
--   repair_text      the answer to open calls
-- Output: {'gone'} | {'not_dead', status} | {'discarded', next `job|priority` or ''}
local job, session, member_base, repair_text = unpack(ARGV)
check_session()
local has_record = not is_damaged(JOB)
if has_record then
  local status = redis.call('HGET', JOB, 'status')
  if not status then return { 'gone' } end
  if status ~= 'dead_lettered' or redis.call('HEXISTS', JOB, 'discarded') == 1 then return { 'not_dead', status } end
  if not pcall(repair, repair_text, member_base) then redis.call('DEL', STEPS) end -- the log, or the rows, are damaged
  redis.call('HSET', JOB, 'discarded', '1')
  -- The session goes on with what is left of its conversation.
  if redis.call('HEXISTS', JOB, 'lost') == 1 then redis.pcall('HDEL', SESSION, 'entries', 'entries_epoch', 'has_memory') end
  set_redrive('')
else
  if redis.call('HEXISTS', LETTERS, job) == 0 then return { 'gone' } end
  redis.call('DEL', JOB, STEPS)
end
redis.call('ZREM', DEAD, job)
redis.call('HDEL', LETTERS, job)
redis.pcall('HINCRBY', COUNTERS, 'letters.discarded', 1)
keep_new()
return { 'discarded', hand_over(clock(), session, job) }
