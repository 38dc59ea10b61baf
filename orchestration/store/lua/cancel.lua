-- Cancel a job. A queued job ends at once. A job under way is marked, and ends at its next claim.
-- Shared: names, prelude, endings
-- ARGV:
--   job
--   session
--   member_base    `priority|session|job|`
-- Output: {'gone'} | {'ended', status} | {'cancelled', next `job|priority` or ''} | {'marked', step...} (steps to publish now)
local job, session, member_base = unpack(ARGV)
check_session()
local now = clock()
local function leave_line()
  if redis.pcall('HGET', SESSION, 'active') == job then return { 'cancelled', hand_over(now, session) } end
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
local status = redis.call('HGET', JOB, 'status')
if not status then return { 'gone' } end
local is_lost = may_run(status) and is_damaged(STEPS) -- no claim can find its steps
if is_lost then redis.call('DEL', STEPS) end
if status == 'queued' or is_lost then
  redis.call('HSET', JOB, 'status', 'cancelled', 'finished_ms', string.format('%d', now))
  redis.call('HDEL', JOB, 'input', 'waiting')
  redis.call('HINCRBY', COUNTERS, 'jobs.cancelled', 1)
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
