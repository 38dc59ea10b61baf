-- Move first steps from the backlog to their queue while it is short. A step that another steward has moved is left out.
-- Shared: arguments
-- KEYS:
--   queue     LIST  the queue of first steps of one priority
--   backlog   ZSET  member -> virtual start
--   tenants   HASH  tenant -> virtual start of its next job in the backlog
-- ARGV:
--   places                    how many first steps the queue holds
--   steps[](member, message)  the first ones of the backlog
-- Output: how many were moved
local queue, backlog, tenants = unpack(KEYS)
local places = take(1)
local steps = take_list(2)
local free = tonumber(places) - redis.call('LLEN', queue)
local moved = 0
for member, message in rows_of(steps, 2) do
  if moved >= free then break end
  if redis.call('ZREM', backlog, member) == 1 then
    redis.call('LPUSH', queue, message)
    moved = moved + 1
  end
end
if redis.call('EXISTS', backlog) == 0 then redis.call('DEL', tenants) end
return moved
