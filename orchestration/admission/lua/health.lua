-- Is the downstream well? What ended lately, the brake, the breaker, pauses.

-- Requests a minute that were let through and came to an end lately, and so many more.
local function through(c, s, now, more)
  local span = math.max(1000 * MS, now - s.ws + (s.po + s.pf > 0 and c.window_ms * MS or 0))
  return (s.wo + s.po + s.wf + s.pf + more) * MINUTE / span
end

-- The downstream loses calls now: at least a tenth of those in the window, and the last one a moment ago.
local function sick(c, s, now)
  local total = s.wo + s.wf + s.po + s.pf
  return total >= c.min_calls and (s.wf + s.pf) / total >= c.sick_ratio and now - s.lf < c.sick_ms * MS
end

-- Calls are counted by the second they were admitted in: failures are quick and answers slow, so of the calls that end in a
-- second a rising rate fails more than its share, and an outage less, until the last answers from before it are in.
local function count_by_second(s, now)
  local second = math.floor(now / 1000000)
  if second == s.w then return end
  if second == (s.w or 0) + 1 then s.pw, s.pb = s.wa, s.wb else s.pw, s.pb = 0, 0 end
  s.w, s.wa, s.wb = second, 0, 0
end

-- More than its share fails, by as many as if min_calls had all failed: a share alone is soon exceeded by chance.
local function too_many(c, bad, total)
  return total >= c.min_calls and bad >= c.fail_ratio * total + (1 - c.fail_ratio) * c.min_calls
end

-- Does this failure say that nothing goes any more? Its own second does, if it had calls enough and is not long over.
local function broken(c, s, rec)
  local asked, bad = 0, 0
  if rec.w == s.w then
    s.wb = s.wb + 1
    asked, bad = s.wa, s.wb
  elseif rec.w == s.w - 1 then
    s.pb = s.pb + 1
    asked, bad = s.pw, s.pb
  end
  if asked >= c.min_calls then return too_many(c, bad, asked) end
  local few = s.wa + s.pw < c.min_calls
  return s.cf >= c.in_a_row or few and too_many(c, s.wf + s.pf, s.wo + s.wf + s.po + s.pf)
end

-- From when on it is sick (sk), and at which rate it was asked before (sr): a limit may be unknown, too high, or never reached.
local function mark_sick(c, s, now, f)
  if not s.sk and s.pw >= c.min_calls and sick(c, s, now) then s.sk, s.sr = now, s.pw * 60 / f end
end

-- Requests a minute that it may be asked while it fails in part, or nil. Each failure is one more call, so it is asked less for
-- a while, by the square of what it answers: so much would come through, and that share of it is asked. An incident that is over
-- by then has been waited for; in a longer one waiting would save nothing.
local function brake(c, s, now)
  if not s.sk then return nil end
  local bad, total = s.wf + s.pf, s.wo + s.wf + s.po + s.pf
  if total >= c.min_calls and bad / total < c.sick_ratio then
    s.sk, s.sr = nil, nil
  elseif now - s.sk < c.brake_ms * MS and sick(c, s, now) then
    return s.sr * math.max(c.f_min, (1 - bad / total) ^ 2)
  end
end

local function empty_buckets(s)
  for _, r in ipairs(RESOURCES) do s.lv[r] = math.min(s.lv[r], 0) end
end

local function open_breaker(c, s, now, j)
  local ms = math.min(c.open_max_ms, c.open_ms * 2 ^ math.min(s.ck, 10))
  s.cb, s.cu, s.ck, s.g = OPEN, now + ms * MS * (0.75 + 0.5 * j), s.ck + 1, s.g + 1
  s.pl, s.pk, s.pa, s.cf = nil, 0, 0, 0
  s.f, s.th, s.ft = c.f_min, 1, s.cu
  empty_buckets(s)
end

local function close_breaker(c, s, now)
  s.cb, s.ck, s.cf, s.pl, s.pk = CLOSED, 0, 0, nil, 0
  s.wo, s.wf, s.po, s.pf, s.ws = 0, 0, 0, 0, now
  s.wa, s.wb, s.pw, s.pb = 0, 0, 0, 0
  s.f, s.th, s.ft = c.f_min, 1, now
  empty_buckets(s)
end

-- Nobody is admitted before `till`. The longer a provider is not called, the colder it is when it is called again.
local function pause(c, s, now, till, f, cut)
  if till <= s.pu then return end
  s.pu = till
  s.th = math.max(c.f_min, math.max(f, s.th) * cut) -- what was being climbed to was not tried yet: it is no slower for the pause
  s.f, s.ft = math.min(f, s.th * math.max(c.f_min, 1 - (till - now) / (c.cold_after_ms * MS))), till
  empty_buckets(s)
end
