-- Store a whole tool result for its session. If the session does not exist, nothing is stored, because no step could read it.
-- Shared: originals
-- KEYS:
--   session
--   results
--   archive
--   originals
-- ARGV:
--   kept_s
--   most_bytes      of the session's originals
--   handle
--   body
-- Output: 1 kept | 0 there is no such session
local session, results, archive, originals = unpack(KEYS)
local kept_s, most_bytes, handle, body = unpack(ARGV)
if redis.call('EXISTS', session) == 0 then return 0 end
keep_original(session, 'results', handle, body)
bound_originals(session, tonumber(most_bytes))
redis.call('HSET', session, 'flags', 'results')
keep_as_long(session, kept_s, { 'results', 'originals' })
return 1
