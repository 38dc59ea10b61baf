-- An operator's hand.
-- ARGV: 1 pause | resume | open | close | block | unblock  2 ms  3 reason
-- Output: 1 | {'unconfigured'}
local now = clock()
local c, s = load()
if not c then return { 'unconfigured' } end
s = s or fresh(c, now)
local f = refill(c, s, now)
local op, ms = ARGV[1], tonumber(ARGV[2])
if op == 'pause' then pause(c, s, now, now + ms * MS, f, 1)
elseif op == 'resume' then
  if s.pu > now then s.pu, s.ft = 0, now end
elseif op == 'open' then
  open_breaker(c, s, now, 0.5)
  s.cu, s.ft = now + ms * MS, now + ms * MS
elseif op == 'close' then
  if s.cb ~= CLOSED then close_breaker(c, s, now) end -- closing a closed one would only slow it down
elseif op == 'block' then s.bu, s.br = now + ms * MS, short(ARGV[3])
elseif op == 'unblock' then s.bu, s.br = 0, ''
else return redis.error_reply('ERR unknown operation ' .. op) end
schedule(s, now, 0)
save(s)
return 1
