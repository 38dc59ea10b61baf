-- The state of a downstream. Nothing is written.
-- ARGV: none
-- Output: JSON with the fields of DownstreamStatus, rates by resource | nothing: it was never called or configured
local now = clock()
local config, state = load()
if not config then return false end
state = state or new_state(config, now)
local rate = refill(config, state, now)
local braked_to = state.braked_to
if braked_to then -- show the brake in the rate, as a share of the limit, or of the earlier rate if there is no limit
  state.braked_to = nil
  local per_minute = limit(config, state, REQUESTS)
  rate = rate * math.min(1, braked_to / (per_minute > 0 and per_minute or state.rate_before_sick))
end
local levels, limits, depths = {}, {}, {}
for _, resource in ipairs(RESOURCES) do
  local per_minute = limit(config, state, resource)
  if per_minute > 0 then
    levels[resource], limits[resource] = state.level[resource], per_minute
    depths[resource] = depth(config, state, resource)
  end
end
local function ms_left(moment) return math.max(0, moment - now) / MS end
local counted = counters()
local breakers = { [CLOSED] = 'closed', [OPEN] = 'open', [HALF_OPEN] = 'half_open' }
return cjson.encode({
  name = config.name, version = config.version,
  limits = limits, levels = levels, depths = depths, guessed = state.guessed or false, braked = braked_to ~= nil,
  rate_factor = rate,
  breaker = breakers[state.breaker], open_ms = state.breaker == OPEN and ms_left(state.open_until) or 0,
  paused_ms = ms_left(state.paused_until),
  paused_until_ms = state.paused_until > now and math.floor(state.paused_until / MS) or 0,
  blocked_ms = ms_left(state.blocked_until), blocked_reason = state.blocked_until > now and state.block_reason or '',
  waiting = {
    high = waiting_in(HIGH_LANE), high_first = waiting_in(HIGH_FIRST_LANE), rest = waiting_in(REST_LANE),
    retry = waiting_in(RETRY_LANE), rest_first = waiting_in(REST_FIRST_LANE), replay = waiting_in(REPLAY_LANE),
  },
  woken = state.woken, live = state.live, probes = #(state.probe_deadlines or {}), retries_left = state.retry_balance,
  sick = is_sick(config, state, now), in_trouble = state.troubled_since ~= nil, expected_output = state.output_p90, latency_ms = state.latency_ms,
  admitted = state.admitted, ok = state.answered, retried = counted.retried, waited = counted.waited,
  denied = counted.denied, failed = counted.failed, throttled = counted.throttled, lost = counted.lost,
  window_ok = state.window_ok + state.window_before_ok,
  window_failed = state.window_failed + state.window_before_failed,
})
