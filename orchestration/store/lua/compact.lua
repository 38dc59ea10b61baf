-- Commit a compaction: shorten entries in place, move groups from the log to the archive, replace the memory. Messages that
-- were added meanwhile stay. A compaction that lost its lock, or whose log was replaced, changes nothing.
-- Shared: arguments, originals
-- KEYS:
--   session
--   log
--   memory
--   archive
--   results
--   originals
--   counters
--   job            whose usage pays for the summary; the session again if there is none
-- ARGV:
--   nonce
--   epoch             it began with
--   known_length      of the log it began with
--   known_digest      SHA-1 of the last entry of that log
--   kept_s
--   new_memory       or '': the memory stays as it is
--   most_bytes        of the session's originals
--   archived[](group, body)
--   replaced[](index, entry)     index: from 0
--   kept_results[](handle, body)
--   removed[]                    indexes from 0
--   usage[](field, amount)       added to the job's fields
-- Output: 1 | 0 stale
local session, log, memory, archive, results, originals, counters, job = unpack(KEYS)
local nonce, epoch, known_length, known_digest, kept_s, new_memory, most_bytes = take(7)
local archived, replaced, kept_results, removed, usage = take_list(2), take_list(2), take_list(2), take_list(), take_list(2)

local lock, epoch_now = unpack(redis.call('HMGET', session, 'compacting', 'epoch'))
if string.match(lock or '', '^%d+|(.*)$') ~= nonce or (epoch_now or '0') ~= epoch then return 0 end
local last = redis.call('LINDEX', log, known_length - 1)
if not last or redis.sha1hex(last) ~= known_digest then return 0 end

for group, body in rows_of(archived, 2) do keep_original(session, 'archive', group, body) end
for index, entry in rows_of(replaced, 2) do redis.call('LSET', log, index, entry) end
for handle, body in rows_of(kept_results, 2) do keep_original(session, 'results', handle, body) end
local gone = '!' .. nonce -- no message is encoded like this
for index in rows_of(removed, 1) do redis.call('LSET', log, index, gone) end
if length(removed) > 0 then redis.call('LREM', log, length(removed), gone) end
if length(removed) + length(replaced) == 0 then
  redis.call('HDEL', session, 'compacting')
  return 1
end
if new_memory ~= '' then
  redis.call('SET', memory, new_memory, 'KEEPTTL')
  redis.call('HSET', session, 'has_memory', '1')
end
if length(kept_results) > 0 then redis.call('HSET', session, 'flags', 'results') end
redis.call('HSET', session, 'epoch', tonumber(epoch) + 1, 'entries', redis.call('LLEN', log), 'entries_epoch', tonumber(epoch) + 1)
redis.call('HINCRBY', session, 'compactions', 1)
redis.call('HDEL', session, 'compacting')
bound_originals(session, tonumber(most_bytes))
keep_as_long(session, kept_s, { 'memory', 'archive', 'results', 'originals' })
if job ~= session and redis.call('EXISTS', job) == 1 then
  for field, amount in rows_of(usage, 2) do redis.call('HINCRBY', job, field, amount) end
  if length(usage) > 0 then redis.call('HSET', job, 'billed', 'compaction|' .. nonce .. '|' .. epoch) end -- see bill.lua
end
redis.pcall('HINCRBY', counters, 'compactions', 1)
return 1
