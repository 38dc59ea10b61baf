-- Try a dead letter again where it stopped. Its counters of attempts begin anew; ceilings are granted once more from here.
-- ARGV: 1 job  2 session  3 member base  4 steps granted
-- Output: {'gone'} | {'not_dead', status} | {'replayed', step...} (steps to publish now)
local f = redis.call('HMGET', J, 'status', 'turn', 'max_steps', 'timeout_ms', 'parked', 'discarded')
if not f[1] then return { 'gone' } end
if f[1] ~= 'dead_lettered' or f[6] then return { 'not_dead', f[1] } end
local now = clock()
local ceiling = math.max(tonumber(f[3]), tonumber(f[2] or '0') + ARGV[4])
local out = { 'replayed' }
for _, step in ipairs(rows()) do
  local row, member = read_row(step), ARGV[3] .. step
  if row.state == 'started' and row.till > now then
    redis.call('ZADD', DUE, row.till, member) -- a message that found the job dead may have taken the entry with it
  elseif row.state ~= 'parked' then
    local state = row.state == 'started' and 'started' or 'pending'
    write_row(step, state, row.fence, 0, 0, 0, mark(row), row.verdict)
    owe(now, member, 0, '')
    out[#out + 1] = step
  end
end
local parked = tonumber(f[5] or '0') > 0
redis.call('HSET', J, 'status', parked and 'parked' or 'running', 'max_steps', string.format('%d', ceiling),
  'deadline_ms', string.format('%d', now + f[4]))
if parked then show_parked() end
redis.call('HDEL', J, 'failure', 'finished_ms', 'cancel')
redis.call('ZREM', DEAD, ARGV[1])
redis.call('HDEL', LETTERS, ARGV[1])
redis.call('HINCRBY', COUNTERS, 'letters.replayed', 1)
keep_new()
return out
