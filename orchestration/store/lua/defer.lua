-- Put a step back until it is due. Then a steward publishes it. A failed attempt counts. A refusal by the gate does not.
-- Shared: prelude
-- ARGV:
--   step
--   fence
--   member       of the step, in due and owed
--   after_ms
--   counts       1: this was a failed attempt; 0: it was not
--   wakes        1: the coordinator may wake the step before its time; 0: it may not
--   trace        JSON
--   reason       a JSON string
-- Output: 1 | 0 lost
local step, fence, member, after_ms, counts, wakes, trace, reason = unpack(ARGV)
local row = held(step, fence)
if not row then return 0 end
local due = clock() + after_ms
local attempt = row.attempt + counts
local losses = counts == '1' and 0 or row.losses -- keep the losses after a refusal: the step may kill workers
write_row(step, 'pending', row.fence, wakes == '1' and 0 or due, attempt, losses, mark(row), row.decision)
settle_member(member)
redis.call('ZADD', DUE, due, member)
add_trace(trace)
if redis.call('HGET', JOB, 'status') == 'running' then
  redis.call('HSET', JOB, 'waiting', '{"step":"' .. step .. '","reason":' .. reason .. ',"until_ms":'
    .. string.format('%d', due) .. ',"attempt":' .. attempt .. '}')
end
if counts == '1' then
  redis.call('HINCRBY', JOB, 'retries', 1)
  redis.call('HINCRBY', COUNTERS, 'steps.retried', 1)
end
return 1
