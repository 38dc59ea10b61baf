-- A human's decision on a parked step: it is owed again, with the verdict in its row. The first decision wins.
-- ARGV: 1 step  2 member  3 verdict ('approved' or 'rejected:' and a reason without '|')  4 message|''  5 queue (13 model, 14 tools)
-- Output: 1 decided | 0 not parked
local step = ARGV[1]
local row = read_row(step)
if not row or row.state ~= 'parked' or redis.call('HGET', J, 'status') ~= 'parked' then return 0 end
write_row(step, 'pending', row.fence, 0, row.attempt, row.losses, '', ARGV[3])
redis.call('HDEL', R, step .. ':why')
if redis.call('HINCRBY', J, 'parked', -1) == 0 then
  -- The time a human took is not the job's: its deadline moves on by it.
  local f = redis.call('HMGET', J, 'deadline_ms', 'parked_ms')
  redis.call('HSET', J, 'status', 'running', 'deadline_ms', string.format('%d', f[1] + clock() - f[2]))
  redis.call('HDEL', J, 'waiting')
else
  show_parked()
end
keep_new()
owe(clock(), ARGV[2], tonumber(ARGV[5]), ARGV[4])
return 1
