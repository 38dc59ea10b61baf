-- Cancel a job. A queued job ends at once. A job under way is marked, and ends at its next claim.
-- Shared: names, prelude, lost, endings
-- ARGV:
--   job
--   session
--   member_base    `priority|session|job|`
--   repair_text    the answer to open calls, if steps of the job are lost
-- Output: {'gone'} | {'ended', status} | {'cancelled', next `job|priority` or ''} | {'marked', step...} (steps to publish now)
local job, session, member_base, repair_text = unpack(ARGV)
check_session()
local now = clock()
local function leave_line()
  if redis.pcall('HGET', SESSION, 'active') == job then return { 'cancelled', hand_over(now, session, job) } end
  for _, priority in ipairs({ 'high', 'normal', 'low' }) do redis.pcall('LREM', WAITING, 1, job .. '|' .. priority) end
  return { 'cancelled', '' }
end

if is_damaged(JOB) then -- a job without its record does not exist for any worker
  redis.call('DEL', JOB, STEPS)
  redis.call('ZREM', DEAD, job)
  redis.call('HDEL', LETTERS, job)
  settle_member(member_base .. '1')
  return leave_line()
end
local status, open = unpack(redis.call('HMGET', JOB, 'status', 'open'))
if not status then
  -- Without its record, a job that has steps or the session would hold it for ever.
  if redis.call('EXISTS', STEPS) == 0 and redis.pcall('HGET', SESSION, 'active') ~= job then return { 'gone' } end
  redis.call('DEL', STEPS)
  settle_member(member_base .. '1')
  return leave_line()
end
local is_lost = may_run(status) and (is_damaged(STEPS) or has_lost_rows(status, open)) -- no claim can find its steps
if is_lost then
  if not pcall(repair, repair_text, member_base) then redis.call('DEL', STEPS) end
end
if status == 'queued' or is_lost then
  redis.call('HSET', JOB, 'status', 'cancelled', 'finished_ms', string.format('%d', now))
  redis.call('HDEL', JOB, 'input', 'waiting')
  redis.pcall('HINCRBY', COUNTERS, 'jobs.cancelled', 1)
  settle_member(member_base .. '1')
  return leave_line()
end
if status ~= 'running' and status ~= 'parked' then return { 'ended', status } end
redis.call('HSET', JOB, 'cancel', '1')
local out = { 'marked' }
for _, step in ipairs(rows()) do
  local is_readable, row = pcall(read_row, step)
  if not is_readable or row.state ~= 'started' then
    owe(now, member_base .. step)
    out[#out + 1] = step
  end
end
keep_new()
return out
