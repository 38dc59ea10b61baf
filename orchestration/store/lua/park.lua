-- Put a step aside: until a human decides (state parked), or until its child job ends (state waiting).
-- ARGV: 1 step  2 fence  3 member  4 state  5 poll_ms (waiting only)  6 trace|''  7 waiting (JSON)
-- Output: 1 | 0 lost
local step, state = ARGV[1], ARGV[4]
local row = held(step, ARGV[2])
if not row then return 0 end
settle_member(ARGV[3])
if state == 'parked' then
  write_row(step, 'parked', row.fence, 0, row.attempt, row.losses, '', row.verdict)
  redis.call('HSET', R, step .. ':why', ARGV[7])
  -- A call parked beside a sibling that became a dead letter shows after the replay: it must not bring a dead job back.
  if redis.call('HGET', J, 'status') ~= 'dead_lettered' then
    redis.call('HSET', J, 'status', 'parked', 'waiting', ARGV[7])
  end
  if redis.call('HINCRBY', J, 'parked', 1) == 1 then redis.call('HSET', J, 'parked_ms', string.format('%d', clock())) end
else
  local look = clock() + ARGV[5]
  write_row(step, 'waiting', row.fence, look, row.attempt, 0, '', row.verdict)
  redis.call('ZADD', DUE, look, ARGV[3])
end
if ARGV[6] ~= '' then redis.call('RPUSH', T, ARGV[6]) end
keep_new()
if state == 'parked' then hold() end
return 1
