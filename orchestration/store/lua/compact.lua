-- Commit a compaction: elide results in place, take groups out of the log, archive them, replace the memory. What was added
-- to the log meanwhile stays. A compaction that lost its lock, or whose log is another one now, changes nothing.
-- KEYS: 1 session  2 log  3 memory  4 archive  5 results  6 counters  7 job (its usage pays for the summary), or the session again
--       8 originals
-- ARGV: 1 nonce  2 epoch it began with  3 length it knew  4 SHA-1 of the last entry it knew  5 kept_s  6 memory or '' (as it is)
--       7..12 usage  13 n archived, then n x (group, bytes);  then n elided, then n x (index from 0, entry);
--       then n results, then n x (handle, bytes);  then n removed, then n indexes from 0;  then most bytes of originals
-- Output: 1 | 0 stale
local s = redis.call('HMGET', KEYS[1], 'compacting', 'epoch')
local nonce = string.match(s[1] or '', '^%d+|(.*)$')
if nonce ~= ARGV[1] or (s[2] or '0') ~= ARGV[2] then return 0 end
local last = redis.call('LINDEX', KEYS[2], ARGV[3] - 1)
if not last or redis.sha1hex(last) ~= ARGV[4] then return 0 end

local at = 13
local function each(width, act)
  local n = tonumber(ARGV[at])
  for i = 0, n - 1 do act(at + 1 + i * width) end
  at = at + 1 + n * width
  return n
end

each(2, function(i) keep_original(KEYS[1], 'archive', ARGV[i], ARGV[i + 1]) end)
local elided = each(2, function(i) redis.call('LSET', KEYS[2], ARGV[i], ARGV[i + 1]) end)
local results = each(2, function(i) keep_original(KEYS[1], 'results', ARGV[i], ARGV[i + 1]) end)
local gone = '!' .. ARGV[1] -- no message is encoded like this
local removed = each(1, function(i) redis.call('LSET', KEYS[2], ARGV[i], gone) end)
if removed > 0 then redis.call('LREM', KEYS[2], removed, gone) end
if removed + elided == 0 then
  redis.call('HDEL', KEYS[1], 'compacting')
  return 1
end
if ARGV[6] ~= '' then redis.call('SET', KEYS[3], ARGV[6], 'KEEPTTL') end
if results > 0 then redis.call('HSET', KEYS[1], 'flags', 'results') end
redis.call('HSET', KEYS[1], 'epoch', tonumber(ARGV[2]) + 1)
redis.call('HINCRBY', KEYS[1], 'compactions', 1)
redis.call('HDEL', KEYS[1], 'compacting')
bound_originals(KEYS[1], tonumber(ARGV[at]))
keep_as_long(KEYS[1], ARGV[5], { 'memory', 'archive', 'results', 'originals' })
if KEYS[7] ~= KEYS[1] and redis.call('EXISTS', KEYS[7]) == 1 then
  for i, name in ipairs({ 'in', 'cached', 'cwrite', 'out', 'reasoning', 'unreported' }) do
    if ARGV[6 + i] ~= '0' then redis.call('HINCRBY', KEYS[7], name, ARGV[6 + i]) end
  end
end
redis.call('HINCRBY', KEYS[6], 'compactions', 1)
return 1
