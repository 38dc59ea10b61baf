-- Shared by every function of the coordinator's library: this text, then health, buckets and lines, then one function a file.
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
           ws = now, wo = 0, wf = 0, po = 0, pf = 0, lf = 0, w = 0, wa = 0, wb = 0, pw = 0, pb = 0,
           rb = c.retry_cap * c.cold, la = 0, p9 = 0, na = 0, no = 0, live = 0 }
end

-- Parts of the state are nil nearly always: wk what is promised to the woken, lim the limits learned, pl the deadlines of
-- probes, px how many of them failed, sk and sr since when it is sick and its rate before, cap what the brake allows.
local function save(s) redis.call('HSET', STATE, 'st', cmsgpack.pack(s)) end

-- Events that are rare are counted beside the state, not in it.
local function count(event) redis.call('HINCRBY', STATE, event, 1) end

-- At most 200 bytes, cut between characters: half of one can't be decoded.
local function short(text)
  if #text <= 200 then return text end
  return (string.gsub(string.sub(text, 1, 200), '[\192-\255][\128-\191]*$', ''))
end

-- [0, 1), different for every seed and every moment
local function jitter(seed, now)
  return tonumber(string.sub(redis.sha1hex(seed .. string.format('%.0f', now)), 1, 8), 16) / 4294967296
end
