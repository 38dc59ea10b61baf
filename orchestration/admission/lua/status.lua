-- How a downstream stands, as JSON; nothing is written.
local now = clock()
local c, s = load()
if not c then return false end
s = s or fresh(c, now)
local f = refill(c, s, now)
local cap = s.cap
if cap then -- the brake is shown as part of the factor: of the limit or, where none is known, of the rate from before
  s.cap = nil
  local known = limit(c, s, 'q')
  f = f * math.min(1, cap / (known > 0 and known or s.sr))
end
local levels, limits, depths = {}, {}, {}
for _, r in ipairs(RESOURCES) do
  local l = limit(c, s, r)
  if l > 0 then levels[r], limits[r], depths[r] = s.lv[r], l, depth(c, s, r) end
end
local counts = redis.call('HMGET', STATE, 'retried', 'waited', 'denied', 'failed', 'throttled', 'lost')
local function counted(n) return tonumber(counts[n] or 0) end
local names = { [CLOSED] = 'closed', [OPEN] = 'open', [HALF_OPEN] = 'half_open' }
return cjson.encode({
  name = c.name, version = c.version, limits = limits, levels = levels, depths = depths, guessed = s.guess or false, braked = cap ~= nil,
  rate_factor = f, breaker = names[s.cb], open_ms = s.cb == OPEN and math.max(0, s.cu - now) / MS or 0,
  paused_ms = math.max(0, s.pu - now) / MS, paused_until_ms = s.pu > now and math.floor(s.pu / MS) or 0,
  blocked_ms = math.max(0, s.bu - now) / MS, blocked_reason = s.bu > now and s.br or '',
  waiting = { high = redis.call('ZCARD', HIGH), rest = redis.call('ZCARD', REST), retry = redis.call('ZCARD', RETRY) },
  woken = s.wn, live = s.live, probes = #(s.pl or {}), retries_left = s.rb, sick = sick(c, s, now),
  expected_output = s.p9, latency_ms = s.la, admitted = s.na, ok = s.no, retried = counted(1), waited = counted(2), denied = counted(3), failed = counted(4),
  throttled = counted(5), lost = counted(6), window_ok = s.wo + s.po, window_failed = s.wf + s.pf })
