-- What became of an admitted call. Counts once: a second report of the same call changes nothing.
-- ARGV: 1 call  2 fence  3 outcome: ok | throttled | failed | unreached (failed, and never seen) | caller | unsent | blocked
--         | unread (made, and nobody could read what came back: charged as reserved, no news)
--       4 input used  5 of it cached  6 output used ('' = not known)  7 retry_after_ms  8 latency_ms
--       9-12 remaining q i o t ('' = not said)  13-16 limit q i o t  17 reason of a block  18 block_ms
-- Output: {known 0|1, ms until this downstream takes calls again, why, free 0|1}
--         free: this failure is the downstream's news, not one of the call's own attempts
local id, outcome = ARGV[1], ARGV[3]
local seen = outcome ~= 'unsent' and outcome ~= 'unreached'
if outcome == 'unreached' then outcome = 'failed' end
local refused = wrong(ARGV, 4, 6) or wrong(ARGV, 7, 8, true) or wrong(ARGV, 9, 16) or wrong(ARGV, 18, 18, true)
if refused then return refused end
local now = clock()
local c, s = load()
if not c or not s then return { 0, 0, '', 0 } end
expire(s, now)
local f = refill(c, s, now)
local rec = record(id)
if rec and (rec.s ~= 'l' or rec.fe ~= ARGV[2]) then rec = nil end

local function number(n) return ARGV[n] ~= '' and tonumber(ARGV[n]) or nil end

local probe = rec and rec.p and rec.g == s.g and s.cb == HALF_OPEN
if rec then
  s.live = math.max(0, s.live - 1)
  local in_used, cached, out_used = number(4), number(5) or 0, number(6)
  if not seen then
    take(s, need_of(rec), -1)
    in_used, out_used, cached = 0, 0, 0
  elseif outcome == 'throttled' or outcome == 'blocked' or (outcome == 'caller' and not in_used) then -- a refused call costs no tokens
    in_used, out_used, cached = 0, 0, 0
    take(s, { q = 0, i = rec.i, o = rec.o, t = rec.i + rec.o }, -1)
  elseif in_used and out_used then
    local counted = math.max(0, in_used - (c.count_cached and 0 or cached))
    local back_i, back_o = rec.i - counted, rec.o - out_used
    if c.reserve_output == 'max_tokens' then back_o = 0 end -- charged by what was asked for, used or not
    take(s, { q = 0, i = back_i, o = back_o, t = back_i + back_o }, -1) -- a level may go below 0: a debt
  end -- not known: it is charged as reserved
  for _, r in ipairs(RESOURCES) do
    local l = limit(c, s, r)
    if l > 0 then s.lv[r] = math.max(-l, math.min(depth(c, s, r), s.lv[r])) end -- no debt beyond a minute, no loan
  end
  if rec.root then spend(rec, in_used or rec.li, out_used or rec.lo) end
  if s.nq > 0 then schedule(s, now, 0) end -- what comes back may let somebody go, long before what was reserved would
  if outcome == 'ok' and out_used then -- a running 90th percentile: up in nine steps, down in one
    if s.p9 == 0 then s.p9 = math.max(out_used, 1)
    elseif out_used > s.p9 then s.p9 = s.p9 * 1.09
    else s.p9 = math.max(1, s.p9 * 0.99) end
  end
  if outcome == 'ok' then s.la = s.la == 0 and tonumber(ARGV[8]) or s.la * 0.9 + ARGV[8] * 0.1 end
end

-- The provider's own view wins: its limits where the operator named none, and what is left when it is less than we think.
for n, r in ipairs(rec and RESOURCES or {}) do
  local named, left = number(12 + n), number(8 + n)
  if named and named > 0 then
    if limit(c, s, r) == 0 then s.lv[r] = 0 end -- what was taken before it had a limit is no debt
    s.lim = s.lim or {}
    s.lim[r] = named
    if r == 'q' then s.guess = nil end
  end
  if left and limit(c, s, r) > 0 then s.lv[r] = math.min(s.lv[r], left) end
end

if rec then
  if probe and s.pl then table.remove(s.pl, 1) end
  if probe and (outcome == 'ok' or outcome == 'caller') then -- it answers: a bad request is no sign of illness
    s.pk, s.pl = s.pk + 1, nil -- those sent before it may hang: room for others
    if s.pk >= c.probe_ok then close_breaker(c, s, now) end
  end
  if outcome == 'ok' then
    s.no, s.wo, s.cf = s.no + 1, s.wo + 1, 0
    s.rb = math.min(c.retry_cap, s.rb + c.retry_ratio)
  elseif outcome == 'throttled' then
    count('throttled')
    -- A burst of 429s is one signal: one cut per gap. A 5xx cuts nothing: it comes whatever the rate (simulated).
    -- One that comes while nobody is admitted was sent before the pause: the same signal once more.
    local news = s.pu <= now and now - s.fc >= c.cut_gap_ms * MS
    local cut = news and c.cut or 1
    if limit(c, s, 'q') == 0 then -- an unknown limit: guessed from what was sent lately, answered or not
      s.lim = s.lim or {}
      s.lim.q = math.max(6, through(c, s, now, s.live + 1))
      s.guess = true
      s.lv.q = 0
    elseif s.guess and news then -- too much again: what was let through is the new guess, between the rate tried and its cut
      s.lim.q = math.max(6, math.min(s.lim.q * f, math.max(through(c, s, now, 0), s.lim.q * f * c.cut)))
      f, cut = 1, 1
    end
    if news then s.fc = now end
    local pause_ms = math.min(c.pause_max_ms, math.max(number(7) or 0, c.throttle_pause_ms))
    pause(c, s, now, now + pause_ms * MS, f, cut)
  elseif outcome == 'failed' then
    count('failed')
    s.lf = now
    if (number(7) or 0) > 0 then pause(c, s, now, now + math.min(c.pause_max_ms, number(7)) * MS, f, 1) end
    -- News of an older generation is no news: 512 timeouts of one outage trip the breaker once. Nor is that of a probe which
    -- was written off: what hung since then says nothing of now.
    if rec.g == s.g and not (rec.p and rec.p <= now) then
      s.wf, s.cf = s.wf + 1, s.cf + 1
      if s.cb == CLOSED then mark_sick(c, s, now, f) end
      if probe then s.px = (s.px or 0) + 1 end
      local gone = broken(c, s, rec)
      if probe and s.px > c.probes - c.probe_ok or gone and s.cb == CLOSED then open_breaker(c, s, now, jitter(id, now)) end
    end
  elseif outcome == 'blocked' then
    s.bu, s.br = math.max(s.bu, now + ARGV[18] * MS), short(ARGV[17])
    schedule(s, now, 0) -- those who wait are told
  end
  drop_record(id)
  -- What is tried again for free is a retry all the same: the lineage pays for it when it asks again.
  if outcome == 'throttled' or (outcome == 'failed' and rec.p) then write_record(s, id, { s = 'f' }, now + PAID_MS * MS) end
end

local closed, why = 0, ''
if s.bu > now then closed, why = s.bu - now, 'blocked'
elseif s.pu > now then closed, why = s.pu - now, 'paused'
elseif s.cb == OPEN then closed, why = s.cu - now, 'open' end
save(s)
local free = rec and (outcome == 'throttled' or (outcome == 'failed' and rec.p)) and 1 or 0
return { rec and 1 or 0, math.ceil(closed / MS), why, free }
