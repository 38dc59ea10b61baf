-- Keep a whole tool result beside its session. For one that is not there any more nothing is kept: nobody could read it.
-- KEYS: 1 session  2 results  3 archive  4 originals (in the session's slot)
-- ARGV: 1 kept_s  2 most bytes of originals  3 handle  4 body
-- Output: 1 kept | 0 there is no such session
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
keep_original(KEYS[1], 'results', ARGV[3], ARGV[4])
bound_originals(KEYS[1], tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'flags', 'results')
keep_as_long(KEYS[1], ARGV[1], { 'results', 'originals' })
return 1
