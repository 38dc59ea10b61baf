-- Append results of tool calls. After the last result of a turn, owe the next model turn.
-- A result is left out if the fence of its row is another one: its step has ended, or another worker runs it.
-- Shared: names, prelude, job_clock, arguments
-- ARGV:
--   fence
--   worked_ms         of the child job whose answer this is; 0 without one
--   next_step         the next model turn
--   next_member       of it, in due and owed
--   next_message      of it, for the model queue, or ''
--   results[](step, member, message, trace)    message and trace are JSON
-- Output: {results applied, 1 if the next turn is owed}
local fence, worked_ms, next_step, next_member, next_message = take(5)
local results = take_list(4)
local done = {} -- fields of STEPS
for step, member, message, trace in rows_of(results, 4) do
  if is_held(step, fence) then
    append(message)
    add_trace(trace)
    settle_member(member)
    done[#done + 1] = step
    done[#done + 1] = step .. ':call'
    done[#done + 1] = step .. ':losses'
  end
end
local applied = #done / 3
if applied == 0 then return { 0, 0 } end
redis.pcall('HINCRBY', COUNTERS, 'steps.tool', applied)
local now = clock()
local time, open = read_clock('open')
local changed = {}
if worked_ms ~= '0' then
  changed = { 'child', charge_child(time, done[1], worked_ms), 'held_ms', string.format('%d', time.held_ms),
              'deadline_ms', string.format('%d', time.deadline_ms) }
end
stop_work(time, applied, now)
open = tonumber(open) - applied
redis.call('HSET', JOB, 'open', open, 'working', time.working, 'held_since', string.format('%d', time.held_since), unpack(changed))
if open > 0 then
  redis.call('HDEL', STEPS, unpack(done))
  return { applied, 0 }
end
write_row(next_step, 'pending', '0', 0, 0, 0, '', '') -- before HDEL: a hash without fields is deleted, with its time to live
redis.call('HDEL', STEPS, unpack(done))
owe_new(now, next_member, MODEL_QUEUE, next_message)
return { applied, 1 }
