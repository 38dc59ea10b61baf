-- Cancel a job: at once when nothing of it has begun, otherwise by a mark that every claim and renewal sees.
-- ARGV: 1 job  2 session  3 member base (`priority|session|job|`)
-- Output: {'gone'} | {'ended', status} | {'cancelled', next `job|priority` or ''} | {'marked', step...} (steps to publish now)
local status = redis.call('HGET', J, 'status')
if not status then return { 'gone' } end
local now = clock()
if status == 'queued' then
  redis.call('HSET', J, 'status', 'cancelled', 'finished_ms', string.format('%d', now))
  redis.call('HDEL', J, 'input')
  redis.call('HINCRBY', COUNTERS, 'jobs.cancelled', 1)
  settle_member(ARGV[3] .. '1')
  if redis.call('HGET', S, 'active') == ARGV[1] then return { 'cancelled', hand_over(now, ARGV[2]) } end
  for _, priority in ipairs({ 'high', 'normal', 'low' }) do redis.call('LREM', WAITING, 1, ARGV[1] .. '|' .. priority) end
  return { 'cancelled', '' }
end
if status ~= 'running' and status ~= 'parked' then return { 'ended', status } end
redis.call('HSET', J, 'cancel', '1')
local out = { 'marked' }
for _, step in ipairs(rows()) do
  if read_row(step).state ~= 'started' then
    owe(now, ARGV[3] .. step, 0, '')
    out[#out + 1] = step
  end
end
keep_new()
return out
