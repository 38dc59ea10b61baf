-- Mark steps as owed that the coordinator woke. A step in due moves to owed. A step in owed stays there: it became due by itself, and a
-- second message does no harm. A step in neither no longer waits, and is not changed.
-- Shared: arguments
-- KEYS:
--   due
--   owed
-- ARGV:
--   members[]
-- Output: the members that wait; a steward must publish them
local due, owed = unpack(KEYS)
local members = take_list()
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for member in rows_of(members, 1) do
  if redis.call('ZREM', due, member) == 1 or redis.call('ZSCORE', owed, member) then
    redis.call('ZADD', owed, now, member)
    out[#out + 1] = member
  end
end
return out
