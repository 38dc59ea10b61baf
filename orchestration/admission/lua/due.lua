-- Return the downstreams whose lines a steward should check now.
-- KEYS: 1 index
-- ARGV:
--   at_most   downstreams to name
-- Output: {ms until the next one, or -1: there is none, downstream...}
local at_most = unpack(ARGV)

local t = redis.call('TIME')
local now = math.floor((t[1] * 1000000 + t[2]) / 1000)
local reply = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, at_most)
local later = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, now + 3600000, 'WITHSCORES', 'LIMIT', 0, 1)
table.insert(reply, 1, later[2] and tonumber(later[2]) - now or -1)
return reply
