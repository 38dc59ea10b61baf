-- Cancel a job. A queued job ends at once. A job under way is marked, and ends at its next claim.
-- Shared: prelude, endings
-- ARGV:
--   job
--   session
--   member_base    `priority|session|job|`
-- Output: {'gone'} | {'ended', status} | {'cancelled', next `job|priority` or ''} | {'marked', step...} (steps to publish now)
local job, session, member_base = unpack(ARGV)
local status = redis.call('HGET', JOB, 'status')
if not status then return { 'gone' } end
local now = clock()
if status == 'queued' then
  redis.call('HSET', JOB, 'status', 'cancelled', 'finished_ms', string.format('%d', now))
  redis.call('HDEL', JOB, 'input')
  redis.call('HINCRBY', COUNTERS, 'jobs.cancelled', 1)
  settle_member(member_base .. '1')
  if redis.call('HGET', SESSION, 'active') == job then return { 'cancelled', hand_over(now, session) } end
  for _, priority in ipairs({ 'high', 'normal', 'low' }) do redis.call('LREM', WAITING, 1, job .. '|' .. priority) end
  return { 'cancelled', '' }
end
if status ~= 'running' and status ~= 'parked' then return { 'ended', status } end
redis.call('HSET', JOB, 'cancel', '1')
local out = { 'marked' }
for _, step in ipairs(rows()) do
  if read_row(step).state ~= 'started' then
    owe(now, member_base .. step)
    out[#out + 1] = step
  end
end
keep_new()
return out
