-- Downstreams at whose lines a steward should look now.
-- KEYS: 1 index   ARGV: 1 at most
-- Output: {ms until the next one, or -1, downstream...}
local t = redis.call('TIME')
local now = math.floor((t[1] * 1000000 + t[2]) / 1000)
local out = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local following = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, now + 3600000, 'WITHSCORES', 'LIMIT', 0, 1)
table.insert(out, 1, following[2] and tonumber(following[2]) - now or -1)
return out
