-- Delete calls whose step no longer waits, because its job was cancelled or has ended. What was reserved for them is free again.
-- ARGV:
--   call_ids      JSON, a list
--   in_line       1: also calls that wait in line, because their job has ended; 0: only woken calls
-- Output: how many were forgotten
local call_ids, in_line = unpack(ARGV)
call_ids = cjson.decode(call_ids)

local now = clock()
local config, state = load()
if not config or not state then return 0 end
refill(config, state, now)
local forgotten = 0
for _, call_id in ipairs(call_ids) do
  local call = read_call(call_id)
  if call and call.state == WOKEN then
    withdraw_promise(state, need_of(call))
    drop_call(call_id)
    forgotten = forgotten + 1
    -- It made no call. While the downstream is in trouble, the next one need not wait for the result of a trial.
    if state.woken == 0 then state.woken_at = 0 end
  elseif call and call.state == WAITING and in_line == '1' then
    leave_lane(state, call_id, call)
    drop_call(call_id)
    forgotten = forgotten + 1
  end
end
if forgotten > 0 then
  if state.in_line > 0 then schedule(state, now, 0) end
  save(state)
end
return forgotten
