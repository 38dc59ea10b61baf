-- What a steward must publish now, of one partition. Each entry is handed to one steward: it moves to owed with a new time.
-- KEYS: 1 due  2 owed
-- ARGV: 1 limit  2 patience_ms: how long an unclaimed step may lie when its queue is empty (then its message is lost)
--       3 stale_ms: the same when its queue is not empty (then it probably just waits)  4, 5 model and tools queue empty 0|1
-- Output: {ms until the next entry is due, or -1, member...}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = { -1 }
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZADD', KEYS[2], now, member)
  out[#out + 1] = member
end
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #old, 2 do
  local is_tool = string.match(old[i], '|%d+%.%d+$')
  local idle = ARGV[is_tool and 5 or 4] == '1'
  if idle or tonumber(old[i + 1]) <= now - ARGV[3] then
    redis.call('ZADD', KEYS[2], now, old[i])
    out[#out + 1] = old[i]
  end
end
local following = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if following[2] then out[1] = math.max(0, tonumber(following[2]) - now) end
return out
