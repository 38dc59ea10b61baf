-- Estimate the limit from 429s. A limit refuses more calls when the rate rises; a stray 429 comes at any rate.
--
-- There are three rules:
--   1. The limit is exceeded when the share of 429s has risen above `stray_share`, the share that comes at any rate. The test is
--      Page's cumulative sum (1954): each call that begins lowers `evidence`, each 429 raises it, by the log-likelihood ratio of
--      the two shares. It decides when `evidence` exceeds the logarithm of the calls a minute. So by Lorden's bound (1971) a
--      steady share of strays causes a cut at most about once a minute, at any rate.
--   2. A cut is a trial. If the share of 429s does not fall with the rate, they do not come from a limit: the cut is undone, and
--      the share becomes `stray_share`. (TCP undoes a cut that its losses did not justify: RFC 3522, RFC 4015.)
--   3. A guessed limit grows as in CUBIC (RFC 9438): it stays near the limit that was exceeded, then grows faster and faster. It
--      grows only while calls wait for it (RFC 7661).

local FIRST_STRAYS, LEAST_STRAYS, MOST_STRAYS = 0.01, 0.001, 0.15 -- bounds of stray_share, and its first value
local RISEN_SHARE, RISE = 0.06, 3 -- the share that a limit refuses is taken to be at least this, and this many times the strays'
local LEAST_CUT = 0.92 -- a guess that was exceeded is cut to this, or to what passed
local UNDO = 1.5 -- a guess whose cut is undone becomes so many times as high, or what it was before
local UNCHANGED = 0.5 -- a cut has not helped if at least this part of the share of 429s remains
local MEMORY_CALLS = 30 -- what was known of strays counts like so many calls
local GUESS_CUT = 0.85 -- the share of a guess that is tried first
local TEST_CALLS = 30 -- calls after a cut that are enough to judge it
local SPAN_CALLS, SPAN_MS = 30, 60000 -- see begin_span
local PLATEAU_MS = 110000 -- a guessed limit stays this long, and has grown by GROWTH after twice as long
local GROWTH = 0.3

local function strays(state) return state.stray_share or FIRST_STRAYS end

-- Log-likelihood ratios for "the limit refuses calls": of a call that began, and of a call that was refused.
local function ratios(state)
  local share = strays(state)
  local risen = math.max(RISEN_SHARE, RISE * share)
  local begun = math.log((1 - risen) / (1 - share))
  return begun, math.log(risen / share) - begun
end

-- Calls are counted in two spans: the present one and the one before. A span has at least SPAN_CALLS
-- calls, or lasts SPAN_MS: fewer calls measure no rate.
local function begin_span(config, state, now)
  local since = state.span_since or now
  local lasted_ms = (now - since) / MS
  if lasted_ms < config.window_ms or (state.span_begun or 0) < SPAN_CALLS and lasted_ms < SPAN_MS then
    state.span_since = since
    return
  end
  local begun, refused = state.span_begun or 0, state.span_refused or 0
  local follows = lasted_ms < 2 * SPAN_MS
  state.span_before_since = follows and since or now
  state.span_before_begun, state.span_before_refused = follows and begun or 0, follows and refused or 0
  state.span_since, state.span_begun, state.span_refused = now, 0, 0
end

-- Count a call that begins.
local function note_begun(state)
  local begun = ratios(state)
  state.evidence = math.max(0, (state.evidence or 0) + begun)
  state.risen = state.evidence > 0 and (state.risen or 0) + 1 or nil
  if not state.risen then state.risen_refused = nil end
  state.span_begun = (state.span_begun or 0) + 1
  if state.tested then state.tested = state.tested + 1 end
end

-- Of both spans: calls that began, calls that were refused, and calls that began per minute.
local function recent_begun(state, now)
  local begun = (state.span_begun or 0) + (state.span_before_begun or 0)
  local refused = (state.span_refused or 0) + (state.span_before_refused or 0)
  return begun, refused, begun * MINUTE / math.max(1000 * MS, now - (state.span_before_since or state.span_since))
end

-- The rate that passes, per minute: calls that were not refused, and the strays among those that were. If more and more calls
-- come, the present span has the higher rate.
local function passing(state, now)
  local begun, refused, per_minute = recent_begun(state, now)
  local share = begun > 0 and math.min(1, (1 - refused / begun) / (1 - strays(state))) or 0
  if state.span_begun >= SPAN_CALLS then
    per_minute = math.max(per_minute, state.span_begun * MINUTE / math.max(1000 * MS, now - state.span_since))
  end
  return math.max(6, per_minute * share)
end

-- The share of calls that passes at the present rate, strays not counted: since the last cut, if it is still tested.
local function passed_share(state, now)
  local begun, refused = recent_begun(state, now)
  if state.tested then begun, refused = state.tested, state.tested_refused end
  return (1 - refused / math.max(1, begun)) / (1 - strays(state))
end

-- Count a 429. Do the 429s show that the limit is exceeded?
local function is_limit_exceeded(state, now)
  local _, refused = ratios(state)
  state.evidence = (state.evidence or 0) + refused
  state.risen_refused = (state.risen_refused or 0) + 1
  if state.tested then state.tested_refused = state.tested_refused + 1 end
  local _, _, per_minute = recent_begun(state, now)
  return state.evidence > math.max(1, math.log(per_minute))
end

-- Keep the rate constant until there are enough calls to judge the cut of a guess.
local function hold_cut(state, now)
  if state.tested and state.guessed and state.tested < TEST_CALLS then state.rate_since = math.max(state.rate_since, now) end
end

-- Judge the last cut by the 429s since. 'cut': the rate is still above the limit, since more calls are refused than
-- any strays could. 'undo': the cut has not helped. 'keep': it has. nil: the calls are too few.
local function judge_cut(state)
  if not state.tested then return 'cut' end
  local calls, refused = state.tested, state.tested_refused
  if refused > MOST_STRAYS * calls + 2 * math.sqrt(MOST_STRAYS * calls) then return 'cut' end
  if calls < TEST_CALLS then return nil end
  return refused >= UNCHANGED * state.share_before * calls and 'undo' or 'cut'
end

-- Let the share of 429s since the cut be the share of strays. The share that was known before has the weight of
-- MEMORY_CALLS calls.
local function learn_strays(state)
  local calls = state.tested
  local share = state.tested_refused / math.max(1, calls)
  local learned = strays(state) + calls / (calls + MEMORY_CALLS) * (share - strays(state))
  state.stray_share = math.max(LEAST_STRAYS, math.min(MOST_STRAYS, learned))
end

local function end_test(state)
  state.tested, state.tested_refused, state.share_before, state.limit_before = nil, nil, nil, nil
end

-- Begin to test a cut. Keep what an undo of the cut needs.
local function begin_test(state, now)
  if not state.tested then state.limit_before = state.guessed and state.learned[REQUESTS] or 0 end
  state.tested, state.tested_refused = 0, 0
  state.share_before = state.risen_refused / math.max(state.risen_refused, state.risen or 0)
  state.evidence, state.cut_at = 0, now
  state.pressed_ms = state.limit_before > 0 and 0 or 1.6 * PLATEAU_MS -- the first guess is a rough one
end

-- The guess, divided by the limit that was exceeded, after calls have waited for this time. The more strays there are,
-- the less a guess is worth.
local function growth(state, pressed_ms)
  local plateau_ms = PLATEAU_MS / (1 + 15 * strays(state))
  return 1 + GROWTH * math.max(0, pressed_ms / plateau_ms - 1) ^ 3
end
