-- Delete woken calls whose step no longer waits (its job was cancelled). What was reserved for them is free again.
-- ARGV:
--   call_ids   JSON, a list
-- Output: how many were forgotten
local call_ids = unpack(ARGV)
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
  end
end
if forgotten > 0 then
  if state.in_line > 0 then schedule(state, now, 0) end
  save(state)
end
return forgotten
