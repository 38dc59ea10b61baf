-- Begin a compaction: take the session's lock, and read the conversation to compact.
-- KEYS:
--   session
--   log
--   memory
-- ARGV:
--   nonce
--   lock_ms
--   job          the job that wants it, or '' for an operator
-- Output: {'busy', ms} | {'gone'} | {'begun', epoch, active job or '', memory or '', anchor or '', log entries}
local session, log, memory = unpack(KEYS)
local nonce, lock_ms, job = unpack(ARGV)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lock, epoch, active, anchor = unpack(redis.call('HMGET', session, 'compacting', 'epoch', 'active', 'anchor'))
if redis.call('EXISTS', log) == 0 then return { 'gone' } end
if job ~= '' and active ~= job then return { 'gone' } end
local till, holder = string.match(lock or '', '^(%d+)|(.*)$')
if till and tonumber(till) > now and holder ~= nonce then return { 'busy', tonumber(till) - now } end
redis.call('HSET', session, 'compacting', string.format('%d', now + lock_ms) .. '|' .. nonce)
return { 'begun', epoch or '0', active or '', redis.call('GET', memory) or '', anchor or '', redis.call('LRANGE', log, 0, -1) }
