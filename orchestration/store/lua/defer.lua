-- Put a step back until its time. The steward releases it; a failed attempt counts, a refusal by admission does not.
-- ARGV: 1 step  2 fence  3 member  4 after_ms  5 counts 0|1  6 trace  7 reason (a JSON string)
--       8 wakes 0|1: in a line of the coordinator, which may bring it back at any time
-- Output: 1 | 0 lost
local step = ARGV[1]
local row = held(step, ARGV[2])
if not row then return 0 end
local due = clock() + ARGV[4]
local attempt = row.attempt + ARGV[5]
local losses = ARGV[5] == '1' and 0 or row.losses -- else a step that kills workers is never found out at a busy gate
write_row(step, 'pending', row.fence, ARGV[8] == '1' and 0 or due, attempt, losses, mark(row), row.verdict)
settle_member(ARGV[3])
redis.call('ZADD', DUE, due, ARGV[3])
redis.call('RPUSH', T, ARGV[6])
redis.call('EXPIRE', T, KEPT_S, 'NX') -- it may be new
if redis.call('HGET', J, 'status') == 'running' then
  redis.call('HSET', J, 'waiting', '{"step":"' .. step .. '","reason":' .. ARGV[7] .. ',"until_ms":'
    .. string.format('%d', due) .. ',"attempt":' .. attempt .. '}')
end
if ARGV[5] == '1' then
  redis.call('HINCRBY', J, 'retries', 1)
  redis.call('HINCRBY', COUNTERS, 'steps.retried', 1)
end
return 1
