-- Shared by every function of the coordinator's library: it is made of this text and one function for each of the other files.
--
-- KEYS are the same for all of them, and all in one slot, for a decision changes a downstream and a lineage at once:
--   1 state  HASH  cfg, st (MessagePack), json     5 retry   ZSET  waiting retries    -> virtual start
--   2 calls  HASH  call -> record (MessagePack)    6 flows   HASH  tenant|priority -> virtual finish
--   3 high   ZSET  waiting, priority high          7 expiry  ZSET  call -> us when its record is over
--   4 rest   ZSET  waiting, other priorities       8 index   ZSET  downstream -> ms when there is something to release
--   9 lineage HASH  (only admit and settle)
--
-- A record is {s = state, m = member to publish, y = try it was made for, ...}. Its states:
--   'w' waits in a line   'k' woken: has the right of way   'l' live: admitted, tokens taken   'p' a paced retry, paid for
-- Tokens are taken when a call is admitted, not when it is woken: what is woken and late can't pile up beyond a bucket.
-- Time is the server's, in microseconds. Jitter is a hash: the server reseeds math.random alike on every call.
-- Scripts read and decide first and write last, with commands that can't fail on the types they have read.

local STATE, CALLS, HIGH, REST, RETRY, FLOWS, EXPIRY, INDEX, LANES
local MS, MINUTE = 1000, 60000000
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local PAID_MS = 86400000 -- how long a place and a paid retry are remembered
local LOOK_MS = 60000 -- how often a steward looks where nobody waits
local FORGET_MS = 600000 -- a guessed limit that no 429 has confirmed for so long is none
local NO_EXPIRY = 9e15
local NEVER = 4102444800000 -- the year 2100, in ms: nothing waits
local RESOURCES = { 'q', 'i', 'o', 't' } -- requests, input tokens, output tokens, input and output on one axis

-- Every function of the library begins with this.
local function bind(keys)
  STATE, CALLS, HIGH, REST, RETRY, FLOWS, EXPIRY, INDEX = unpack(keys, 1, 8)
  LANES = { h = HIGH, n = REST, r = RETRY }
end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- A configuration is unpacked once and kept while its bytes are the same: this is a fifth of a decision (measured).
local kept, n_kept = {}, 0

local function configured(raw)
  local known = kept[STATE]
  if known and known.raw == raw then return known.c end
  if not known then n_kept = n_kept + 1 end
  if n_kept > 1000 then kept, n_kept = {}, 1 end
  local c = cmsgpack.unpack(raw)
  kept[STATE] = { raw = raw, c = c }
  return c
end

-- What is no number, negative or NaN is found out before anything is written: an error half-way would leave half a decision.
local function wrong(argv, first, last, needed)
  for n = first, last do
    local v = tonumber(argv[n])
    if not (v and v >= 0 and v < 1e18) and (needed or argv[n] ~= '') then
      return redis.error_reply('ERR argument ' .. n .. ': expected a number of at least 0, got ' .. string.sub(argv[n], 1, 40))
    end
  end
end

local function load()
  local v = redis.call('HMGET', STATE, 'cfg', 'st')
  if not v[1] then return nil end
  return configured(v[1]), v[2] and cmsgpack.unpack(v[2]) or nil
end

-- A new or lost downstream starts with one burst and a low rate.
local function fresh(c, now)
  local lv = {}
  for _, r in ipairs(RESOURCES) do lv[r] = c[r] * c.burst_ms / 60000 end
  lv.q = math.max(1, lv.q)
  return { name = c.name, ts = now, lv = lv, wn = 0, v = 0, f = c.cold, th = 1, ft = now, fc = 0, pu = 0, bu = 0, br = '',
           cb = CLOSED, cu = 0, ck = 0, g = 0, cf = 0, pa = 0, pk = 0, nx = NO_EXPIRY, nq = 0,
           ws = now, wo = 0, wf = 0, po = 0, pf = 0, lf = 0, rb = c.retry_cap * c.cold, la = 0, p9 = 0,
           na = 0, no = 0, live = 0 }
end

-- Three tables of the state are nil while there is nothing in them, which is nearly always: wk what is promised to the woken,
-- lim the limits learned, pl the deadlines of probes.
local function save(s) redis.call('HSET', STATE, 'st', cmsgpack.pack(s)) end

-- Events that are rare are counted beside the state, not in it.
local function count(event) redis.call('HINCRBY', STATE, event, 1) end

-- The limit in force: the operator's, else the one the provider's headers name, else one guessed from its 429s; 0: none.
local function limit(c, s, r)
  if c[r] > 0 then return c[r] end
  return s.lim and s.lim[r] or 0
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
    for _, k in ipairs({ 'ts', 'ft', 'fc', 'pu', 'bu', 'cu', 'pa', 'ws', 'lf' }) do s[k] = math.max(0, s[k] - d) end
    for n, at in ipairs(s.pl or {}) do s.pl[n] = at - d end
  end
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
  while s.pl and s.pl[1] and s.pl[1] <= now do table.remove(s.pl, 1) end -- lost or slow probes make room for others
  if s.cb == OPEN and s.cu <= now then s.cb, s.pl, s.pk, s.pa = HALF_OPEN, nil, 0, 0 end
  return f
end

-- At most 200 bytes, cut between characters: half of one can't be decoded.
local function short(text)
  if #text <= 200 then return text end
  return (string.gsub(string.sub(text, 1, 200), '[\192-\255][\128-\191]*$', ''))
end

local function empty_buckets(s)
  for _, r in ipairs(RESOURCES) do s.lv[r] = math.min(s.lv[r], 0) end
end

-- [0, 1), different for every seed and every moment
local function jitter(seed, now)
  return tonumber(string.sub(redis.sha1hex(seed .. string.format('%.0f', now)), 1, 8), 16) / 4294967296
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

-- The downstream loses calls now: at least a tenth of those in the window, and the last one a moment ago.
local function sick(c, s, now)
  local total = s.wo + s.wf + s.po + s.pf
  return total >= c.min_calls and (s.wf + s.pf) / total >= c.sick_ratio and now - s.lf < c.sick_ms * MS
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

local function record(id)
  local raw = redis.call('HGET', CALLS, id)
  return raw and cmsgpack.unpack(raw) or nil
end

-- What a record needs of each resource: it keeps input and output only.
local function need_of(rec) return needs(rec.i, rec.o) end

local function write_record(s, id, rec, over)
  redis.call('HSET', CALLS, id, cmsgpack.pack(rec))
  if over then
    redis.call('ZADD', EXPIRY, over, id)
    s.nx = math.min(s.nx, over)
  else
    redis.call('ZREM', EXPIRY, id)
  end
end

local function drop_record(id)
  redis.call('HDEL', CALLS, id)
  redis.call('ZREM', EXPIRY, id)
end

local function enter_line(s, lane, tag, id) s.nq = s.nq + redis.call('ZADD', LANES[lane], tag, id) end

local function leave_line(s, lane, id) s.nq = math.max(0, s.nq - redis.call('ZREM', LANES[lane], id)) end

-- Move what a call reserved of its lineage's tokens to what the lineage has used.
local function spend(rec, input, output)
  redis.call('HINCRBYFLOAT', rec.root, 'ri', -rec.li)
  redis.call('HINCRBYFLOAT', rec.root, 'ro', -rec.lo)
  redis.call('HINCRBYFLOAT', rec.root, 'ui', input)
  redis.call('HINCRBYFLOAT', rec.root, 'uo', output)
end

-- A live call that nobody will settle: its worker is dead. What it reserved stays charged, for it may have been made.
local function lose(s, rec)
  s.live = math.max(0, s.live - 1)
  count('lost')
  if rec.root then
    spend(rec, rec.li, rec.lo)
  end
end

-- Records whose time is over.
local function expire(s, now)
  if s.nx > now then return end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, 50)) do
    local rec = record(id)
    if rec and rec.s == 'l' then lose(s, rec) end
    if rec and rec.s == 'k' then -- its worker is slow, or its job over: it keeps its place, but holds nobody up
      promise(s, need_of(rec), -1)
      rec.s, rec.at = 'p', now
      write_record(s, id, rec, now + PAID_MS * MS)
    else
      drop_record(id)
    end
  end
  s.nx = tonumber(redis.call('ZRANGE', EXPIRY, 0, 0, 'WITHSCORES')[2] or NO_EXPIRY)
end

-- ms from now until the steward should look again
local function schedule(s, now, us)
  redis.call('ZADD', INDEX, math.floor((now + math.max(0, us)) / MS), s.name)
end
