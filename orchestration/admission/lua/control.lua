-- Carry out an operator's command.
-- ARGV:
--   operation   pause | resume | open | close | block | unblock
--   length_ms   of a pause, an opening or a block
--   reason      of a block
-- Output: 1 done | 0 the downstream was never called or configured
local operation, length_ms, reason = unpack(ARGV)
length_ms = tonumber(length_ms)

local now = clock()
local config, state = load()
if not config then return 0 end
state = state or new_state(config, now)
local rate = refill(config, state, now)
local till = now + length_ms * MS
if operation == 'pause' then pause(config, state, now, till, rate, 1)
elseif operation == 'resume' then
  if state.paused_until > now then state.paused_until, state.rate_since = 0, now end
  end_trouble(config, state)
elseif operation == 'open' then
  open_breaker(config, state, now, 0.5)
  state.open_until, state.rate_since = till, till
elseif operation == 'close' then
  if state.breaker ~= CLOSED then close_breaker(config, state, now) end -- to close a closed breaker would only reduce the rate
  end_trouble(config, state)
elseif operation == 'block' then state.blocked_until, state.block_reason = till, short(reason)
elseif operation == 'unblock' then state.blocked_until, state.block_reason = 0, ''
else error('ERR unknown operation ' .. operation, 0) end
schedule(state, now, 0)
save(state)
return 1
