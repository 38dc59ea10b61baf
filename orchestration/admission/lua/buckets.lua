-- Limits and what is left of them.

-- The limit in force: the operator's, else the one the provider's headers name, else one guessed from its 429s; 0: none.
-- The brake holds requests below it.
local function limit(c, s, r)
  local l = c[r] > 0 and c[r] or s.lim and s.lim[r] or 0
  return r == 'q' and s.cap and (l == 0 or s.cap < l) and s.cap or l
end

local function depth(c, s, r)
  local d = limit(c, s, r) * c.burst_ms / 60000
  return r == 'q' and math.max(1, d) or d
end

-- The multiplier on the limits: after a silence it climbs from f to the threshold th in at most ramp_ms (slow start), from
-- there to 1 in at most recover_ms (additive increase).
local function factor(c, s, now)
  local dt = math.max(0, now - s.ft) / MS
  local climb = math.max(0, s.th - s.f) * c.ramp_ms
  if dt < climb then return s.f + dt / c.ramp_ms end
  return math.min(1, math.max(s.f, s.th) + (dt - climb) / c.recover_ms)
end

local function refill(c, s, now)
  if now < s.ts then -- a failover to a server whose clock is behind: carry every moment over
    local d = s.ts - now
    for _, k in ipairs({ 'ts', 'ft', 'fc', 'pu', 'bu', 'cu', 'pa', 'ws', 'lf', 'sk' }) do s[k] = s[k] and math.max(0, s[k] - d) end
    for n, at in ipairs(s.pl or {}) do s.pl[n] = at - d end
  end
  s.cap = brake(c, s, now)
  local f = factor(c, s, now)
  local from = math.max(s.ts, s.pu, s.cb ~= CLOSED and s.cu or 0) -- what is shut saves nothing up
  if now > from then
    local mean = (factor(c, s, from) + f) / 2 * (now - from) / MINUTE
    for _, r in ipairs(RESOURCES) do
      local l = limit(c, s, r)
      -- Without a limit nothing is owed, or the first one set or learned would wait for all calls ever made to be paid off.
      s.lv[r] = l > 0 and math.min(depth(c, s, r), s.lv[r] + l * mean) or 0
    end
    if s.guess and now - s.fc > FORGET_MS * MS then s.lim.q, s.guess = nil, nil end -- it was a bad moment, not a limit
    if s.guess and c.q == 0 then s.lim.q = s.lim.q * (1 + 0.1 * (now - from) / MINUTE) end
  end
  if now > s.ts then
    s.rb = math.min(c.retry_cap, s.rb + c.retry_floor * (now - s.ts) / 1000000)
    s.ts = now
  end
  if now - s.ws >= c.window_ms * MS then -- two half-overlapping windows
    if now - s.ws < 2 * c.window_ms * MS then s.po, s.pf = s.wo, s.wf else s.po, s.pf = 0, 0 end
    s.wo, s.wf, s.ws = 0, 0, now
  end
  count_by_second(s, now)
  while s.pl and s.pl[1] and s.pl[1] <= now do table.remove(s.pl, 1) end -- lost or slow probes make room for others
  if s.cb == OPEN and s.cu <= now then s.cb, s.pl, s.pk, s.px, s.pa = HALF_OPEN, nil, 0, nil, 0 end
  return f
end

-- us until `need` fits on top of what is promised to the woken; a call leaves `headroom` of each bucket to higher priorities.
local function lack(c, s, f, need, headroom)
  local most = 0
  for _, r in ipairs(RESOURCES) do
    local l = limit(c, s, r)
    if l > 0 and need[r] > 0 then
      local d = depth(c, s, r)
      local want = math.min(need[r], d * (1 - headroom)) + headroom * d
      most = math.max(most, (want - (s.lv[r] - (s.wk and s.wk[r] or 0))) / (l * f) * MINUTE)
    end
  end
  return most < 1 and 0 or most -- below a microsecond it is a rounding, which no waiting would end
end

local function take(s, need, sign)
  for _, r in ipairs(RESOURCES) do s.lv[r] = s.lv[r] - sign * need[r] end
end

local function promise(s, need, sign)
  s.wn = math.max(0, s.wn + sign)
  local wk = s.wk or { q = 0, i = 0, o = 0, t = 0 }
  for _, r in ipairs(RESOURCES) do wk[r] = math.max(0, wk[r] + sign * need[r]) end
  s.wk = s.wn > 0 and wk or nil -- no rest of a rounding stays behind
end

local function needs(i, o) return { q = 1, i = i, o = o, t = i + o } end
