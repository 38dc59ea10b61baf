-- End a job. A dead letter holds its session (and its rows, for the replay); any other ending hands the session on.
-- ARGV: 1 step  2 fence  3 member base (`priority|session|job|`)  4 job  5 session  6 status  7 output (JSON string)|''
--       8 failure (JSON)|''  9..14 usage  15 trace  16 letter (JSON)|''  17 repair text  18 group  19 n messages, then n messages, then anchor|'',
--       then n counters of drift, then n names
-- Output: {0} lost | {1, next `job|priority` or ''}
local step = ARGV[1]
local row = held(step, ARGV[2])
if not row then return { 0 } end
local now, status = clock(), ARGV[6]
-- Who cancelled a job wants its session back, not a dead letter that holds it.
if status == 'dead_lettered' and redis.call('HEXISTS', J, 'cancel') == 1 then status = 'cancelled' end
for i = 1, tonumber(ARGV[19]) do redis.call('RPUSH', L, ARGV[19 + i]) end
if ARGV[19] ~= '0' then redis.call('HSET', S, 'groups', ARGV[18]) end
local anchor = ARGV[20 + ARGV[19]]
if anchor ~= '' then redis.call('HSET', S, 'anchor', anchor) end
count_drift(now, 21 + ARGV[19])
add_usage(9)
redis.call('RPUSH', T, ARGV[15])
local before = redis.call('HGET', J, 'status')
redis.call('HSET', J, 'status', status, 'finished_ms', string.format('%d', now))
if ARGV[7] ~= '' then redis.call('HSET', J, 'output', ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', J, 'failure', ARGV[8]) end
redis.call('HDEL', J, 'waiting')
if status ~= before then redis.call('HINCRBY', COUNTERS, 'jobs.' .. status, 1) end -- else a sibling was first

if status == 'dead_lettered' then
  write_row(step, 'dead', row.fence, 0, row.attempt, row.losses, mark(row), row.verdict)
  settle_member(ARGV[3] .. step)
  redis.call('ZADD', DEAD, now, ARGV[4])
  redis.call('HSET', LETTERS, ARGV[4], ARGV[16])
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', now - HELD_S * 1000)) do
    redis.call('ZREM', DEAD, gone)
    redis.call('HDEL', LETTERS, gone)
  end
  hold()
  return { 1, '' }
end
if before == 'dead_lettered' then
  redis.call('ZREM', DEAD, ARGV[4])
  redis.call('HDEL', LETTERS, ARGV[4])
end
repair(ARGV[17], ARGV[3])
local following = hand_over(now, ARGV[5])
keep_new()
return { 1, following }
