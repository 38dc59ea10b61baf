-- A human's decision on a parked step: the step is owed again, with the decision in its row. The first decision wins.
-- ARGV: 1 step  2 member  3 verdict (approve|reject)  4 reason (JSON string)  5 message|''  6 queue (13 model, 14 tools)
-- Output: 1 decided | 0 not parked
local step, member, verdict, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local message, queue = ARGV[5], tonumber(ARGV[6])
local row = read_row(step)
if not row or row.state ~= 'parked' or redis.call('HGET', J, 'status') ~= 'parked' then return 0 end

-- What was asked is this step's own question: another call of the turn may be parked for another reason.
local decision = 'approved'
if verdict == 'reject' then
  local why = redis.call('HGET', R, step .. ':why')
  local asked = why and cjson.decode(why) or {}
  -- Releases before 0.2 stored no kind; there the runtime's own word stands before the colon.
  local about = asked.kind or string.match(asked.reason or '', '^([%a_]+): ')
  decision = 'rejected:|{"about":' .. (about and cjson.encode(about) or 'null') .. ',"reason":' .. reason .. '}'
end
write_row(step, 'pending', row.fence, 0, row.attempt, row.losses, '', decision)
redis.call('HDEL', R, step .. ':why')
if redis.call('HINCRBY', J, 'parked', -1) == 0 then
  -- The time a human took does not count: the deadline moves on by it.
  local f = redis.call('HMGET', J, 'deadline_ms', 'parked_ms')
  redis.call('HSET', J, 'status', 'running', 'deadline_ms', string.format('%d', f[1] + clock() - f[2]))
  redis.call('HDEL', J, 'waiting')
else
  show_parked()
end
keep_new()
owe(clock(), member, queue, message)
return 1
