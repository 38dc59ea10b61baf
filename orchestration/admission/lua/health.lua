-- The health of a downstream: the results of its last calls, the brake, the breaker, pauses.

-- Number of failed calls in both windows, and of all calls.
local function recent_calls(state)
  local failed = state.window_failed + state.window_before_failed
  return failed, state.window_ok + state.window_before_ok + failed
end

-- Is the downstream sick? At least a tenth of the calls in the windows failed, the last one a moment ago.
local function is_sick(config, state, now)
  local failed, total = recent_calls(state)
  return total >= config.min_calls and failed / total >= config.sick_ratio and now - state.failed_at < config.sick_ms * MS
end

-- Calls are counted by the second in which they were admitted. A count by the second of their end would be wrong, because
-- failures are quick and answers are slow. When the rate rises, it would show too many failures. At the start of an outage
-- it would show too few, because answers to earlier calls still arrive.
local function count_by_second(state, now)
  local second = math.floor(now / 1000000)
  if second == state.second then return end
  local follows = second == (state.second or 0) + 1
  state.second_before_begun = follows and state.second_begun or 0
  state.second_before_failed = follows and state.second_failed or 0
  state.second, state.second_begun, state.second_failed = second, 0, 0
end

-- Do more calls fail than fail_ratio allows? The second term is a margin, because among a few calls the share alone is often
-- exceeded by chance.
local function too_many(config, failed, total)
  return total >= config.min_calls and failed >= config.fail_ratio * total + (1 - config.fail_ratio) * config.min_calls
end

-- Does this failure mean that no call succeeds any more? This is decided by the calls of the second in which it began, if
-- they are enough, and if it is this second or the one before.
local function is_broken(config, state, call)
  local begun, failed = 0, 0
  if call.second == state.second then
    state.second_failed = state.second_failed + 1
    begun, failed = state.second_begun, state.second_failed
  elseif call.second == state.second - 1 then
    state.second_before_failed = state.second_before_failed + 1
    begun, failed = state.second_before_begun, state.second_before_failed
  end
  if begun >= config.min_calls then return too_many(config, failed, begun) end
  if state.failed_in_a_row >= config.failures_in_a_row then return true end
  local few = state.second_begun + state.second_before_begun < config.min_calls
  return few and too_many(config, recent_calls(state))
end

-- Record since when the downstream is sick, and its rate before that. Its limit is of no use here: it may be unknown or too high.
local function mark_sick(config, state, now, rate)
  if not state.sick_since and state.second_before_begun >= config.min_calls and is_sick(config, state, now) then
    state.sick_since, state.rate_before_sick = now, state.second_before_begun * 60 / rate
  end
end

-- The reduced rate, in requests a minute, of a downstream that fails in part; nil if there is none. Each failed call must be
-- repeated, so it is cheaper to wait until the incident is over. The rate is multiplied by the square of the share that is
-- answered. The brake ends after a while, because in a long incident waiting saves nothing.
local function brake(config, state, now)
  if not state.sick_since then return nil end
  local failed, total = recent_calls(state)
  if total >= config.min_calls and failed / total < config.sick_ratio then
    state.sick_since, state.rate_before_sick = nil, nil
  elseif now - state.sick_since < config.brake_ms * MS and is_sick(config, state, now) then
    return state.rate_before_sick * math.max(config.least_rate, (1 - failed / total) ^ 2)
  end
end

-- Trouble: calls fail or get a 429, and no call has been answered since. One such call is enough if no other is live. With
-- others live, an answer may arrive any moment, so several are needed: a busy downstream that loses one call in a hundred is
-- not in trouble. While it lasts, the whole fleet sends at most two calls a second, as trials. An answer ends it.
local function note_unanswered(state, now, is_present)
  state.unanswered_ever = (state.unanswered_ever or 0) + 1
  if not is_present then return end
  state.unanswered = (state.unanswered or 0) + 1
  if not state.troubled_since and state.unanswered >= math.min(TROUBLED_AFTER, 1 + state.live) then
    state.troubled_since, state.trials = now, 0
  end
end

-- How many us until a downstream in trouble may get another call; 0 if it is not in trouble. `since` is when the last one was
-- admitted. The gap grows while the breaker is closed. An open breaker has longer gaps already.
local function time_to_trial(config, state, now, since)
  local first_ms = config.trial_gap_ms or TRIAL_GAP_MS
  if not state.troubled_since or first_ms == 0 then return 0 end
  local doublings = state.breaker == CLOSED and math.max(0, state.trials - TRIALS_BEFORE_GROWTH) or 0
  local gap_ms = math.max(first_ms, math.min(TRIAL_GAP_MAX_MS, first_ms * 2 ^ math.min(doublings, 10)))
  return math.max(0, (since or 0) + gap_ms * MS - now)
end

-- When the last call was admitted, or the last waiting call was woken to start.
local function last_start(state) return math.max(state.admitted_at or 0, state.woken_at or 0) end

local function empty_buckets(state)
  for _, resource in ipairs(RESOURCES) do state.level[resource] = math.min(state.level[resource], 0) end
end

-- A call was answered. What the buckets have saved up between trials would be a burst, at the moment of recovery.
local function end_trouble(config, state)
  if state.troubled_since and state.trials > 0 and config.trial_gap_ms ~= 0 then empty_buckets(state) end
  state.unanswered, state.troubled_since, state.trials = nil, nil, nil
end

-- Begin a slow start at the least rate, from `moment` on.
local function restart_rate(config, state, moment)
  state.rate, state.rate_threshold, state.rate_since = config.least_rate, 1, moment
  empty_buckets(state)
end

local function open_breaker(config, state, now, chance)
  local ms = math.min(config.open_max_ms, config.open_ms * 2 ^ math.min(state.openings_in_a_row, 10))
  state.breaker, state.open_until = OPEN, now + ms * MS * (0.75 + 0.5 * chance)
  state.openings_in_a_row, state.openings = state.openings_in_a_row + 1, state.openings + 1
  state.probe_deadlines, state.probes_answered, state.next_probe_at, state.failed_in_a_row = nil, 0, 0, 0
  restart_rate(config, state, state.open_until)
end

local function close_breaker(config, state, now)
  state.breaker, state.openings_in_a_row, state.failed_in_a_row = CLOSED, 0, 0
  state.probe_deadlines, state.probes_answered = nil, 0
  state.window_ok, state.window_failed, state.window_before_ok, state.window_before_failed = 0, 0, 0, 0
  state.window_since = now
  state.second_begun, state.second_failed, state.second_before_begun, state.second_before_failed = 0, 0, 0, 0
  restart_rate(config, state, now)
end

-- Admit no call before `till`. After a long pause the rate starts lower.
local function pause(config, state, now, till, rate, cut)
  if till <= state.paused_until then
    if cut == 1 then return end
    till = state.paused_until -- a longer pause goes on, at a lower rate after it
  end
  state.paused_until = till
  -- Keep the threshold of the slow start: the rate had not reached it yet.
  state.rate_threshold = math.max(config.least_rate, math.max(rate, state.rate_threshold) * cut)
  local warmth = math.max(config.least_rate, 1 - (till - now) / (config.cold_after_ms * MS))
  state.rate, state.rate_since = math.min(rate, state.rate_threshold * warmth), till
  empty_buckets(state)
end
