-- Steps that the coordinator woke: what waits in due is owed now. One that is owed already (it came by itself) still waits, too;
-- its second message finds nothing to do. Steps that are not waiting any more are left alone.
-- KEYS: 1 due  2 owed
-- ARGV: members
-- Output: those that wait, which a steward must publish
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for _, member in ipairs(ARGV) do
  if redis.call('ZREM', KEYS[1], member) == 1 or redis.call('ZSCORE', KEYS[2], member) then
    redis.call('ZADD', KEYS[2], now, member)
    out[#out + 1] = member
  end
end
return out
