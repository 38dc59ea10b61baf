-- What the settlement of a call changes: the buckets, the expected usage, the limits, and the health of the downstream.

-- What a call needs of tokens, without its request.
local function tokens(input, output)
  return { [REQUESTS] = 0, [INPUT] = input, [OUTPUT] = output, [BOTH] = input + output }
end

-- Return what was reserved and not used. If more was used than reserved, the level may fall below 0: a debt.
local function give_back_unused(config, state, call, input_used, cached, output_used)
  local counted = math.max(0, input_used - (config.count_cached and 0 or cached))
  local output_rest = call.output - output_used
  if config.reserve_output == 'max_tokens' then output_rest = 0 end -- such a provider charges the maximum, used or not
  give_back(state, tokens(call.input - counted, output_rest))
end

-- Keep each level between a debt of one minute and a full bucket.
local function bound_levels(config, state)
  for _, resource in ipairs(RESOURCES) do
    local per_minute = limit(config, state, resource)
    if per_minute > 0 then
      local level = math.min(depth(config, state, resource), state.level[resource])
      state.level[resource] = math.max(-per_minute, level)
    end
  end
end

-- Learn the output of calls (a running 90th percentile: nine steps up for one step down) and their duration.
local function learn_usual(state, output_used, latency_ms)
  if output_used then
    if state.output_p90 == 0 then state.output_p90 = math.max(output_used, 1)
    elseif output_used > state.output_p90 then state.output_p90 = state.output_p90 * 1.09
    else state.output_p90 = math.max(1, state.output_p90 * 0.99) end
  end
  state.latency_ms = state.latency_ms == 0 and latency_ms or state.latency_ms * 0.9 + latency_ms * 0.1
end

-- Does this failure say anything about the downstream now? Not if the call began before the breaker last opened: 512 timeouts of one outage must
-- open it only once. Not if it was a probe that took too long: it has hung since then.
local function is_news(state, call, now)
  return call.generation == state.openings and not (call.probe_deadline and call.probe_deadline <= now)
end

-- Is this failure the call's own fault? It is if the call fails again and again while others are answered. The first failure
-- never is, and none is while the downstream is in trouble or sick. A trial never is, and neither is a call from before the
-- breaker opened: one that hangs may fail long after others are answered again. `past` has what was counted at the call's last
-- failure.
-- A failure: at least two of three other calls were answered since then. A 429: others were answered and none was refused,
-- three times in a row, because a limit is mostly used up by others.
local function is_own_fault(config, state, now, call, past, is_throttled)
  local is_late = call.is_trial or call.generation ~= state.openings
  if is_late or state.troubled_since or state.breaker ~= CLOSED or past.failures == 0 then
    past.alone = 0
    return false
  end
  local answered, lost = state.answered - past.answered, (state.unanswered_ever or 0) - past.unanswered
  local is_alone = answered > 0 and (is_throttled and lost == 0 or not is_throttled and answered >= 2 * lost)
  past.alone = is_alone and past.alone + 1 or 0
  if is_throttled then return past.alone >= ALONE_THROTTLED end
  return is_alone and not is_sick(config, state, now)
end

-- Keep what the next failure of this call is compared with, and how many failures did not count. Older records have no past.
local function remember_failure(state, now, call_id, past, is_counted)
  past.failures, past.answered, past.unanswered = past.failures + 1, state.answered, state.unanswered_ever or 0
  if not is_counted then past.uncounted = past.uncounted + 1 end
  local call = { state = FAILED, counted = is_counted or nil, past = past }
  write_call(state, call_id, call, now + PAID_MS * MS)
end

-- Count a failure that says something about the downstream now. Open the breaker if no call succeeds any more.
local function count_failure(config, state, now, rate, call_id, call, is_probe)
  state.window_failed, state.failed_in_a_row = state.window_failed + 1, state.failed_in_a_row + 1
  if state.breaker == CLOSED then mark_sick(config, state, now, rate) end
  if is_probe then state.probes_failed = (state.probes_failed or 0) + 1 end
  local is_down = is_broken(config, state, call)
  if is_probe and state.probes_failed > config.probes - config.probes_to_close or is_down and state.breaker == CLOSED then
    open_breaker(config, state, now, jitter(call_id, now))
  end
end
