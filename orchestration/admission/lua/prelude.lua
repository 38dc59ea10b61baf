-- Shared by every function of the coordinator's library: this text, then health, buckets, lineage, lines and feedback. Each
-- function of the library is one more file.
--
-- A field is written by its word: `state.paused_until`, `call.fence`, `config.burst_ms`. ../legend.py lists every word with
-- its unit and meaning. Redis stores most of them under shorter names, which the loader puts in place of the words.
--
-- All functions but `due` take the same KEYS. All of them lie in one slot, because a decision changes a downstream and a
-- lineage at once:
--   1 state  HASH  cfg, st, weights (MessagePack), json, and one counter for each rare event
--   2 calls  HASH  call id -> record (MessagePack)
--   3 high   ZSET  waiting calls of priority high  -> virtual start
--   4 rest   ZSET  waiting calls of other priorities -> virtual start
--   5 retry  ZSET  waiting retries -> virtual start
--   6 high_first  ZSET  waiting first calls of jobs of priority high -> virtual start
--   7 rest_first  ZSET  waiting first calls of jobs of priority normal or low -> virtual start
--   8 replay ZSET  waiting calls of priority replay -> virtual start
--   9 flows  HASH  tenant|priority, after a letter in the last three lines -> virtual finish
--  10 expiry ZSET  call id -> us when its record expires
--  11 index  ZSET  downstream -> ms when there is something to release
--  12 lineage HASH  (admit and settle only)
--
-- Tokens are taken when a call is admitted, not when it is woken. So late starts of woken calls can't add up to more than a
-- bucket holds.
-- Time is the server's, in microseconds. Jitter is a hash, because math.random gives the same numbers in every call.
-- Functions read and decide first. They write last, with commands that can't fail on the types they have read.

local STATE, CALLS, HIGH, REST, RETRY, HIGH_FIRST, REST_FIRST, REPLAY, FLOWS, EXPIRY, INDEX, LINEAGE, LANES
local MS, MINUTE = 1000, 60000000 -- in us
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2 -- the breaker
local REQUESTS, INPUT, OUTPUT, BOTH = 'q', 'i', 'o', 't' -- what is limited; BOTH is input and output together
local RESOURCES = { REQUESTS, INPUT, OUTPUT, BOTH }
-- States of a call. Waiting: it is in a line. Woken: it may start before others. Live: it is admitted, its tokens are taken.
-- Paced: a retry that has a start time. Failed: its last call failed, and it has not asked again yet.
local WAITING, WOKEN, LIVE, PACED, FAILED = 'w', 'k', 'l', 'p', 'f'
-- Lanes with two letters are behind the others. A record holds the letters in two fields: earlier releases know the first.
local HIGH_LANE, REST_LANE, RETRY_LANE, HIGH_FIRST_LANE, REST_FIRST_LANE, REPLAY_LANE = 'h', 'n', 'r', 'hf', 'nf', 'ny'
local REPLAY_HEADROOM = 0.5 -- the share of each bucket that replays leave to live calls
local PAID_MS = 86400000 -- how long a place in line and a paid retry are remembered
local LOOK_MS = 60000 -- how often a steward checks a downstream where no call waits
local FORGET_MS = 600000 -- a guessed limit is dropped if no 429 confirms it for this long
-- A downstream in trouble: see health.lua.
local TROUBLED_AFTER = 8 -- failures in a row that mean trouble; fewer if fewer other calls are live
local TRIAL_GAP_MS = 750 -- the default of trial_gap_ms, for a configuration that an older release has stored
local TRIAL_GAP_MAX_MS = 10000 -- the gap between trials grows to this, so that the end of an outage is soon noticed
local TRIALS_BEFORE_GROWTH = 8 -- calls after which the gap begins to double
local ALONE_THROTTLED = 3 -- 429s in a row of one call, while others are answered and none is throttled, that are its own fault
local NO_EXPIRY = 9e15
local NEVER = 4102444800000 -- the year 2100, in ms: no call waits

-- The first call in every function of the library.
local function bind(keys)
  STATE, CALLS, HIGH, REST, RETRY, HIGH_FIRST, REST_FIRST, REPLAY, FLOWS, EXPIRY, INDEX, LINEAGE = unpack(keys, 1, 12)
  LANES = {
    [HIGH_LANE] = HIGH, [REST_LANE] = REST, [RETRY_LANE] = RETRY,
    [HIGH_FIRST_LANE] = HIGH_FIRST, [REST_FIRST_LANE] = REST_FIRST, [REPLAY_LANE] = REPLAY,
  }
end

-- The server's time in us.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Read an argument that must be a number. This runs before anything is written: an error in the middle would leave half a decision,
-- and a NaN would leave a bucket that admits for ever.
local function number(name, text)
  local value = tonumber(text)
  if not (value and value >= 0 and value < 1e18) then
    error('ERR argument ' .. name .. ': expected a number of at least 0, got ' .. string.sub(tostring(text), 1, 40), 0)
  end
  return value
end

-- Read an argument that may be empty. Returns nil if it is.
local function optional_number(name, text)
  if text ~= '' then return number(name, text) end
end

-- Keep each configuration unpacked while its bytes stay the same: unpacking is a fifth of a decision (measured).
local unpacked, n_unpacked = {}, 0

local function unpack_config(raw)
  local kept = unpacked[STATE]
  if kept and kept.raw == raw then return kept.config end
  if not kept then n_unpacked = n_unpacked + 1 end
  if n_unpacked > 1000 then unpacked, n_unpacked = {}, 1 end
  local config = cmsgpack.unpack(raw)
  unpacked[STATE] = { raw = raw, config = config }
  return config
end

-- The downstream's configuration and state. nil if it was never configured; no state if it was never called.
local function load()
  local raw = redis.call('HMGET', STATE, 'cfg', 'st')
  if not raw[1] then return nil end
  return unpack_config(raw[1]), raw[2] and cmsgpack.unpack(raw[2]) or nil
end

local function save(state) redis.call('HSET', STATE, 'st', cmsgpack.pack(state)) end

local function save_config(config, weights, json)
  redis.call('HSET', STATE, 'cfg', cmsgpack.pack(config), 'weights', cmsgpack.pack(weights), 'json', json)
end

local function load_weights() return cmsgpack.unpack(redis.call('HGET', STATE, 'weights')) end

-- A new or lost downstream starts with one burst and a low rate.
local function new_state(config, now)
  local level = {}
  for _, resource in ipairs(RESOURCES) do level[resource] = config[resource] * config.burst_ms / 60000 end
  level[REQUESTS] = math.max(1, level[REQUESTS])
  local state = {
    name = config.name, refilled_at = now, level = level, woken = 0, virtual_time = 0,
    rate = config.cold_rate, rate_threshold = 1, rate_since = now, cut_at = 0,
    paused_until = 0, blocked_until = 0, block_reason = '',
    breaker = CLOSED, open_until = 0, openings_in_a_row = 0, openings = 0, failed_in_a_row = 0,
    next_probe_at = 0, probes_answered = 0, next_expiry_at = NO_EXPIRY, in_line = 0,
    window_since = now, window_ok = 0, window_failed = 0, window_before_ok = 0, window_before_failed = 0, failed_at = 0,
    second = 0, second_begun = 0, second_failed = 0, second_before_begun = 0, second_before_failed = 0,
    retry_balance = config.retry_cap * config.cold_rate, latency_ms = 0, output_p90 = 0, admitted = 0, answered = 0, live = 0,
  }
  return state
end

-- Count a rare event in a separate field of the HASH, not in the state.
local function count(event) redis.call('HINCRBY', STATE, event, 1) end

local COUNTERS = { 'retried', 'waited', 'denied', 'failed', 'throttled', 'lost' }

local function counters()
  local found, values = {}, redis.call('HMGET', STATE, unpack(COUNTERS))
  for n, event in ipairs(COUNTERS) do found[event] = tonumber(values[n] or 0) end
  return found
end

-- Cut a text to at most 200 bytes, between characters: half of one can't be decoded.
local function short(text)
  if #text <= 200 then return text end
  return (string.gsub(string.sub(text, 1, 200), '[\192-\255][\128-\191]*$', ''))
end

-- A number in [0, 1) that differs for every seed and every moment.
local function jitter(seed, now)
  return tonumber(string.sub(redis.sha1hex(seed .. string.format('%.0f', now)), 1, 8), 16) / 4294967296
end
