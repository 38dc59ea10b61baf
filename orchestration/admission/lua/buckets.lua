-- Limits, and what is left of them.

-- The limit in force, per minute: the operator's, else that of the provider's headers, else a guess from its 429s.
-- 0 means no limit. The brake can reduce the limit of requests further.
local function limit(config, state, resource)
  local known = config[resource] > 0 and config[resource] or state.learned and state.learned[resource] or 0
  return resource == REQUESTS and state.braked_to and (known == 0 or state.braked_to < known) and state.braked_to or known
end

-- The limit of requests a minute if it is a guess, else 0.
local function guessed_limit(config, state)
  return state.guessed and config.requests_per_minute == 0 and math.floor(limit(config, state, REQUESTS)) or 0
end

-- How much the bucket holds.
local function depth(config, state, resource)
  local burst = limit(config, state, resource) * config.burst_ms / 60000
  return resource == REQUESTS and math.max(1, burst) or burst
end

-- The share of its limits that a downstream gets now. After a silence it climbs from `rate` to `rate_threshold` in at most
-- ramp_ms (slow start), and from there to 1 in at most recover_ms (additive increase).
local function rate_now(config, state, now)
  local passed_ms = math.max(0, now - state.rate_since) / MS
  local climb_ms = math.max(0, state.rate_threshold - state.rate) * config.ramp_ms
  if passed_ms < climb_ms then return state.rate + passed_ms / config.ramp_ms end
  return math.min(1, math.max(state.rate, state.rate_threshold) + (passed_ms - climb_ms) / config.recover_ms)
end

-- Move every stored moment back by `us`: a failover has led to a server whose clock is behind.
local function carry_over(state, us)
  local function back(moment) return math.max(0, moment - us) end
  state.refilled_at, state.rate_since, state.cut_at = back(state.refilled_at), back(state.rate_since), back(state.cut_at)
  state.paused_until, state.blocked_until = back(state.paused_until), back(state.blocked_until)
  state.open_until, state.next_probe_at = back(state.open_until), back(state.next_probe_at)
  state.window_since, state.failed_at = back(state.window_since), back(state.failed_at)
  state.sick_since = state.sick_since and back(state.sick_since)
  state.troubled_since = state.troubled_since and back(state.troubled_since)
  state.passed_since = state.passed_since and back(state.passed_since)
  state.span_since = state.span_since and back(state.span_since)
  state.span_before_since = state.span_before_since and back(state.span_before_since)
  state.admitted_at, state.woken_at = back(state.admitted_at or 0), back(state.woken_at or 0)
  for n, deadline in ipairs(state.probe_deadlines or {}) do state.probe_deadlines[n] = deadline - us end
end

-- Add what has flowed into the buckets since `from`, at the mean of the rates then and now.
local function fill_buckets(config, state, now, from, rate)
  local minutes = (rate_now(config, state, from) + rate) / 2 * (now - from) / MINUTE
  for _, resource in ipairs(RESOURCES) do
    local per_minute = limit(config, state, resource)
    -- Without a limit there is no debt. Otherwise calls under a new limit would wait until all earlier calls are paid for.
    state.level[resource] = per_minute > 0
      and math.min(depth(config, state, resource), state.level[resource] + per_minute * minutes) or 0
  end
  -- Drop a guessed limit that no 429 has confirmed: the guess came from a short disturbance.
  if state.guessed and now - state.cut_at > FORGET_MS * MS then state.learned[REQUESTS], state.guessed = nil, nil end
  if state.guessed and config.requests_per_minute == 0 and state.in_line > 0 and not state.tested then
    local before_ms = state.pressed_ms or 0
    state.pressed_ms = before_ms + (now - from) / MS
    state.learned[REQUESTS] = state.learned[REQUESTS] * growth(state, state.pressed_ms) / growth(state, before_ms)
  end
  if state.tested and rate == 1 then
    learn_strays(state)
    end_test(state)
    state.evidence = 0
  end
end

-- Update the state to the present time, and return the rate.
local function refill(config, state, now)
  if now < state.refilled_at then carry_over(state, state.refilled_at - now) end
  state.braked_to = brake(config, state, now)
  hold_cut(state, now)
  local rate = rate_now(config, state, now)
  -- While no call is admitted, the buckets do not fill.
  local from = math.max(state.refilled_at, state.paused_until, state.breaker ~= CLOSED and state.open_until or 0)
  if now > from then fill_buckets(config, state, now, from, rate) end
  if now > state.refilled_at then
    local grown = state.retry_balance + config.retry_floor_per_s * (now - state.refilled_at) / 1000000
    state.retry_balance = math.min(config.retry_cap, grown)
    state.refilled_at = now
  end
  if now - state.window_since >= config.window_ms * MS then -- two half-overlapping windows
    local follows = now - state.window_since < 2 * config.window_ms * MS
    state.window_before_ok = follows and state.window_ok or 0
    state.window_before_failed = follows and state.window_failed or 0
    state.window_ok, state.window_failed, state.window_since = 0, 0, now
  end
  count_by_second(state, now)
  begin_span(config, state, now)
  -- Lost and slow probes no longer count, so that others can start.
  while state.probe_deadlines and state.probe_deadlines[1] and state.probe_deadlines[1] <= now do
    table.remove(state.probe_deadlines, 1)
  end
  if state.breaker == OPEN and state.open_until <= now then
    state.breaker, state.probe_deadlines, state.probes_answered = HALF_OPEN, nil, 0
    state.probes_failed, state.next_probe_at = nil, 0
  end
  return rate
end

-- How many us until the buckets hold `need` and what is reserved for woken calls. A call leaves the share `headroom` to
-- higher priorities.
local function time_to_fit(config, state, rate, need, headroom)
  local longest = 0
  for _, resource in ipairs(RESOURCES) do
    local per_minute = limit(config, state, resource)
    if per_minute > 0 and need[resource] > 0 then
      local full = depth(config, state, resource)
      local want = math.min(need[resource], full * (1 - headroom)) + headroom * full
      local free = state.level[resource] - (state.promised and state.promised[resource] or 0)
      longest = math.max(longest, (want - free) / (per_minute * rate) * MINUTE)
    end
  end
  return longest < 1 and 0 or longest -- less than 1 us is a rounding error, and no wait would remove it
end

-- The time, in us, in which the limits (times the share `rate`) grant what one call with this `need` takes.
local function service_time(config, state, need, rate)
  local longest = 0
  for _, resource in ipairs(RESOURCES) do
    local per_minute = limit(config, state, resource)
    if per_minute > 0 then longest = math.max(longest, need[resource] / (per_minute * rate) * MINUTE) end
  end
  return longest
end

local function take(state, need)
  for _, resource in ipairs(RESOURCES) do state.level[resource] = state.level[resource] - need[resource] end
end

local function give_back(state, need)
  for _, resource in ipairs(RESOURCES) do state.level[resource] = state.level[resource] + need[resource] end
end

local function add_to_promised(state, need, sign)
  state.woken = math.max(0, state.woken + sign)
  local promised = state.promised or { [REQUESTS] = 0, [INPUT] = 0, [OUTPUT] = 0, [BOTH] = 0 }
  for _, resource in ipairs(RESOURCES) do
    promised[resource] = math.max(0, promised[resource] + sign * need[resource])
  end
  state.promised = state.woken > 0 and promised or nil -- so that no rounding error remains
end

-- Reserve what a woken call needs.
local function promise(state, need) add_to_promised(state, need, 1) end

local function withdraw_promise(state, need) add_to_promised(state, need, -1) end

-- What one call needs of each resource.
local function needs(input, output)
  return { [REQUESTS] = 1, [INPUT] = input, [OUTPUT] = output, [BOTH] = input + output }
end
