-- Append results of tool calls; the last result of a turn owes the next model turn.
-- A result whose row is not held under the fence is left out: its step is over, or another worker runs it.
-- ARGV:
--   fence
--   next_step         the next model turn
--   next_member       of it, in due and owed
--   next_message      of it, for the model queue, or ''
--   results[](step, member, message, trace)    message and trace are JSON
-- Output: {results applied, 1 if the next turn is owed}
local fence, next_step, next_member, next_message = take(4)
local results = take_list(4)
local now, applied = clock(), 0
for _, result in ipairs(results) do
  local step, member, message, trace = unpack(result)
  if held(step, fence) then
    redis.call('RPUSH', LOG, message)
    redis.call('RPUSH', TRACE, trace)
    redis.call('HDEL', STEPS, step, step .. ':call')
    settle_member(member)
    applied = applied + 1
  end
end
if applied == 0 then return { 0, 0 } end
redis.call('HINCRBY', COUNTERS, 'steps.tool', applied)
if redis.call('HINCRBY', JOB, 'open', -applied) > 0 then return { applied, 0 } end
write_row(next_step, 'pending', '0', 0, 0, 0, '', '')
redis.call('EXPIRE', STEPS, KEPT_S, 'NX') -- it was emptied, and so deleted
owe(now, next_member, MODEL_QUEUE, next_message)
return { applied, 1 }
