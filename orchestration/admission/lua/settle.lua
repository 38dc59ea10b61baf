-- Settle an admitted call by its result. A second report of the same call changes nothing.
-- ARGV:
--   call_id          the call's name
--   fence            of the claim that made the call
--   outcome          ok | throttled (429) | failed | unreached (failed, and never arrived) | caller (the caller's own error)
--                    | unsent | blocked | unread (made, but its answer can't be read: charged as reserved, no sign of health)
--   input_tokens     used; '' = not known
--   cached_tokens    input tokens read from the provider's cache; '' = not known
--   output_tokens    used; '' = not known
--   retry_after_ms   the provider's Retry-After; 0 = there was none
--   latency_ms       how long the call took
--   headers          '' or JSON {remaining: {resource: figure}, limits: {resource: figure}}: the provider's headers
--   block_reason     why it is blocked
--   block_ms         for how long
-- Output: {known 0|1, ms until this downstream takes calls again, why: '' | blocked | paused | open, uncounted 0|1}
--         uncounted: this failure does not count against the call's `max_retries`
local call_id, fence, outcome, input_tokens, cached_tokens, output_tokens, retry_after_ms, latency_ms, headers, block_reason,
  block_ms = unpack(ARGV)
input_tokens = optional_number('input_tokens', input_tokens)
cached_tokens = optional_number('cached_tokens', cached_tokens) or 0
output_tokens = optional_number('output_tokens', output_tokens)
retry_after_ms, latency_ms = number('retry_after_ms', retry_after_ms), number('latency_ms', latency_ms)
block_ms = number('block_ms', block_ms)
headers = headers ~= '' and cjson.decode(headers) or nil
if headers then
  for _, figures in ipairs({ headers.remaining, headers.limits }) do
    for resource, figure in pairs(figures) do figures[resource] = number('headers', figure) end
  end
end
local has_arrived = outcome ~= 'unsent' and outcome ~= 'unreached'
if outcome == 'unreached' then outcome = 'failed' end

local now = clock()
local config, state = load()
if not config or not state then return { 0, 0, '', 0 } end
expire(state, now)
local rate = refill(config, state, now)
local call = read_call(call_id)
if call and (call.state ~= LIVE or call.fence ~= fence) then call = nil end

local is_probe = call and call.probe_deadline and call.generation == state.openings and state.breaker == HALF_OPEN
local is_uncounted = false
if call then
  state.live = math.max(0, state.live - 1)
  if not has_arrived then
    give_back(state, need_of(call))
    spend_tokens(call, 0, 0)
  elseif outcome == 'throttled' or outcome == 'blocked' or (outcome == 'caller' and not input_tokens) then
    give_back(state, tokens(call.input, call.output)) -- a refused call costs no tokens
    spend_tokens(call, 0, 0)
  else
    if input_tokens and output_tokens then give_back_unused(config, state, call, input_tokens, cached_tokens, output_tokens) end
    spend_tokens(call, input_tokens or call.reserved_input, output_tokens or call.reserved_output)
  end
  bound_levels(config, state)
  if state.in_line > 0 then schedule(state, now, 0) end -- the returned tokens may be enough for a waiting call
  if outcome == 'ok' then learn_usual(state, output_tokens, latency_ms) end
  if headers then obey_headers(config, state, headers) end
  if is_probe and state.probe_deadlines then table.remove(state.probe_deadlines, 1) end
  if is_probe and (outcome == 'ok' or outcome == 'caller') then -- it answers, even to a bad request
    -- Earlier probes may hang. Don't count them any more, so that others can start.
    state.probes_answered, state.probe_deadlines = state.probes_answered + 1, nil
    if state.probes_answered >= config.probes_to_close then close_breaker(config, state, now) end
  end
  if outcome == 'ok' then
    state.answered, state.window_ok, state.failed_in_a_row = state.answered + 1, state.window_ok + 1, 0
    state.retry_balance = math.min(config.retry_cap, state.retry_balance + config.retry_ratio)
  elseif outcome == 'throttled' then
    count('throttled')
    slow_down(config, state, now, rate, retry_after_ms)
  elseif outcome == 'failed' then
    count('failed')
    state.failed_at = now
    if retry_after_ms > 0 then
      pause(config, state, now, now + math.min(config.pause_max_ms, retry_after_ms) * MS, rate, 1)
    end
    if is_news(state, call, now) then count_failure(config, state, now, rate, call_id, call, is_probe) end
  elseif outcome == 'blocked' then
    state.blocked_until, state.block_reason = math.max(state.blocked_until, now + block_ms * MS), short(block_reason)
    schedule(state, now, 0) -- calls in line are denied now
  end
  drop_call(call_id)
  -- This failure does not count against the call, but the retry still counts against its lineage, when the call asks again.
  is_uncounted = outcome == 'throttled' or outcome == 'failed' and call.probe_deadline ~= nil
  if is_uncounted then
    call = { state = UNCOUNTED }
    write_call(state, call_id, call, now + PAID_MS * MS)
  end
end

local closed_us, why = 0, ''
if state.blocked_until > now then closed_us, why = state.blocked_until - now, 'blocked'
elseif state.paused_until > now then closed_us, why = state.paused_until - now, 'paused'
elseif state.breaker == OPEN then closed_us, why = state.open_until - now, 'open' end
save(state)
return { call and 1 or 0, math.ceil(closed_us / MS), why, is_uncounted and 1 or 0 }
