-- Limits that no person has set: limits in the provider's headers, and guesses from its 429s. They delay calls and deny
-- none.

local HALF_MINUTE_MS = 30000
local MOST_NAMED = 1e9 -- a minute; a header that names more is wrong

-- Count what an answered call used. It is kept for 30 to 60 s.
local function note_passed(state, now, used)
  local passed, before = state.passed or {}, state.passed_before or {}
  if now - (state.passed_since or 0) >= HALF_MINUTE_MS * MS then
    before = now - (state.passed_since or 0) < 2 * HALF_MINUTE_MS * MS and passed or {}
    passed, state.passed_since = {}, now
  end
  for _, resource in ipairs(RESOURCES) do passed[resource] = (passed[resource] or 0) + used[resource] end
  state.passed, state.passed_before = passed, before
end

-- Can this be the provider's limit? Not if more than this was answered within the last minute. A limit that is in force
-- already
-- may be exceeded by what the bucket had saved up.
local function is_believable(state, resource, named)
  local passed = ((state.passed or {})[resource] or 0) + ((state.passed_before or {})[resource] or 0)
  local is_in_force = state.learned and state.learned[resource] == named
  return named > 0 and named <= MOST_NAMED and passed <= (is_in_force and 2 * named or named)
end

-- The provider's figures win: its limits if the operator set none, and its remaining amount if it is below the level
-- here. A limit that can't be true is ignored, and so is its remaining amount.
local function obey_headers(config, state, headers)
  for _, resource in ipairs(RESOURCES) do
    local named, left = headers.limits[resource], headers.remaining[resource]
    local learned = state.learned or {}
    if named and is_believable(state, resource, named) then
      if limit(config, state, resource) == 0 then state.level[resource] = 0 end -- use from the time without a limit is no debt
      learned[resource], state.learned = named, learned
      if resource == REQUESTS then state.guessed = nil end
    elseif named then
      if learned[resource] == named then learned[resource] = nil end
      left = nil
    end
    if left and limit(config, state, resource) > 0 then
      state.level[resource] = math.min(state.level[resource], left)
    end
  end
end

-- Cut the rate, because the limit is exceeded. An unknown limit is guessed: the rate that passes. A guess that was too
-- high becomes the rate of answered calls, at most the guess and at least its cut. Returns the rate and its cut.
local function cut_rate(config, state, now, rate)
  local passed = passed_share(state, now)
  if state.tested and state.tested >= TEST_CALLS then learn_strays(state) end
  begin_test(state, now)
  if limit(config, state, REQUESTS) == 0 then
    state.learned = state.learned or {}
    state.learned[REQUESTS], state.guessed = passing(state, now), true
    state.level[REQUESTS] = 0
  elseif state.guessed then
    state.learned[REQUESTS] = math.max(6, state.learned[REQUESTS] * rate * math.max(config.cut, math.min(LEAST_CUT, passed)))
    rate = 1
  end
  return rate, config.cut
end

-- Undo a cut that has not made 429s rarer. Without a pause, the calls go at the rate from before the cut.
local function undo_cut(config, state, now)
  learn_strays(state)
  if state.guessed then state.learned[REQUESTS] = math.max(state.limit_before, UNDO * state.learned[REQUESTS]) end
  end_test(state)
  state.rate, state.rate_threshold, state.rate_since = 1, 1, now
  state.evidence, state.cut_at, state.pressed_ms = 0, now, 0
end

-- Hear a 429. Its Retry-After pauses all calls. Without one they pause if the limit is exceeded, or if no call is answered.
-- Calls that began before the last cut are part of the same burst: they correct the guess. A 5xx cuts nothing, because it comes
-- at any rate (simulated). In trouble no call is answered at any rate, so that a 429 says nothing about the limit.
local function slow_down(config, state, now, rate, call, retry_after_ms)
  state.span_refused = (state.span_refused or 0) + 1
  local cut, is_closed = 1, state.troubled_since or state.window_ok + state.window_before_ok == 0
  local is_late = call.second <= math.floor(state.cut_at / 1000000) or now - state.cut_at < config.cut_gap_ms * MS
  local is_told = limit(config, state, REQUESTS) > 0 and not state.guessed
  if is_told and retry_after_ms > 0 and not is_late and not state.troubled_since then
    -- The limit is known, and the server names a wait. So a rate limiter answered.
    cut, state.cut_at, state.evidence = config.cut, now, 0
  elseif is_late and state.guessed and state.tested then
    state.learned[REQUESTS] = math.min(state.learned[REQUESTS], passing(state, now))
  elseif not state.troubled_since and not is_late and is_limit_exceeded(state, now) then
    local verdict = judge_cut(state)
    if verdict == 'cut' then
      rate, cut = cut_rate(config, state, now, rate)
      is_closed = true
    elseif verdict == 'undo' then
      undo_cut(config, state, now)
      rate = 1
    end
  end
  local pause_ms = math.max(retry_after_ms, is_closed and config.throttle_pause_ms or 0)
  if pause_ms > 0 then pause(config, state, now, now + math.min(config.pause_max_ms, pause_ms) * MS, rate, cut) end
  if state.tested == 0 and state.guessed then state.rate, state.rate_threshold = GUESS_CUT, GUESS_CUT end
end
