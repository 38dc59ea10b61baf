-- Begin a compaction: take the session's lock, and read all that there is to compact.
-- KEYS: 1 session  2 log  3 memory
-- ARGV: 1 nonce  2 lock_ms  3 job that wants it, or '' for an operator's
-- Output: {'busy', ms} | {'gone'} | {'begun', now, epoch, active job or '', memory or '', anchor or '', log entries}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local s = redis.call('HMGET', KEYS[1], 'compacting', 'epoch', 'active', 'anchor')
if redis.call('EXISTS', KEYS[2]) == 0 then return { 'gone' } end
if ARGV[3] ~= '' and s[3] ~= ARGV[3] then return { 'gone' } end
local till, nonce = string.match(s[1] or '', '^(%d+)|(.*)$')
if till and tonumber(till) > now and nonce ~= ARGV[1] then return { 'busy', tonumber(till) - now } end
redis.call('HSET', KEYS[1], 'compacting', string.format('%d', now + ARGV[2]) .. '|' .. ARGV[1])
return { 'begun', now, s[2] or '0', s[3] or '', redis.call('GET', KEYS[3]) or '', s[4] or '', redis.call('LRANGE', KEYS[2], 0, -1) }
