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
-- Output: {known 0|1, ms until this downstream takes calls again, why: '' | blocked | paused | open | trouble, uncounted 0|1,
--          earlier failures of the call that did not count, the Retry-After in ms (cut to pause_max_ms), in trouble 0|1}
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
if not config or not state then return { 0, 0, '', 1, 0, 0, 0 } end
retry_after_ms = math.min(config.pause_max_ms, retry_after_ms)
expire(state, now)
local rate = refill(config, state, now)
local call = read_call(call_id)
if call and (call.state ~= LIVE or call.fence ~= fence) then call = nil end

local is_probe = call and call.probe_deadline and call.generation == state.openings and state.breaker == HALF_OPEN
local is_lost = outcome == 'failed' or outcome == 'throttled'
local is_uncounted = is_lost -- without a record there is no sign that it was the call's own fault
local earlier = 0 -- failures of the call that did not count
if call then
  state.live = math.max(0, state.live - 1)
  if not has_arrived then
    give_back(state, need_of(call))
    spend_tokens(call, 0, 0)
  elseif outcome == 'throttled' or outcome == 'blocked' or (outcome == 'caller' and not input_tokens) then
    give_back(state, tokens(call.input, call.output)) -- a refused call costs no tokens
    spend_tokens(call, 0, 0)
  else
    -- In trouble, no call is answered. A job that must wait for the downstream is not charged for the calls that it loses.
    local is_free = state.troubled_since and outcome == 'failed'
    if input_tokens and output_tokens then give_back_unused(config, state, call, input_tokens, cached_tokens, output_tokens) end
    spend_tokens(call, input_tokens or is_free and 0 or call.reserved_input, output_tokens or is_free and 0 or call.reserved_output)
  end
  bound_levels(config, state)
  if outcome == 'ok' then note_passed(state, now, needs(input_tokens or 0, output_tokens or 0)) end
  if state.in_line > 0 then schedule(state, now, 0) end -- the returned tokens may be enough for a waiting call
  if outcome == 'ok' then learn_usual(state, output_tokens, latency_ms) end
  if headers then obey_headers(config, state, headers) end
  if is_probe and state.probe_deadlines then table.remove(state.probe_deadlines, 1) end
  if outcome == 'ok' or outcome == 'caller' then end_trouble(config, state) end -- it answers, even if it refuses a bad request
  local past = call.past
  if not past then past = { failures = 0, uncounted = 0, answered = 0, unanswered = 0, alone = 0 } end
  earlier = past.uncounted
  -- A late timeout says that the downstream did not answer half a minute ago.
  local is_present = outcome == 'throttled' or is_news(state, call, now)
  if is_lost then is_uncounted = not is_own_fault(config, state, now, call, past, outcome == 'throttled') end
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
    slow_down(config, state, now, rate, call, retry_after_ms)
  elseif outcome == 'failed' then
    count('failed')
    state.failed_at = now
    if retry_after_ms > 0 then pause(config, state, now, now + retry_after_ms * MS, rate, 1) end
    if is_news(state, call, now) then count_failure(config, state, now, rate, call_id, call, is_probe) end
  elseif outcome == 'blocked' then
    state.blocked_until, state.block_reason = math.max(state.blocked_until, now + block_ms * MS), short(block_reason)
    schedule(state, now, 0) -- calls in line are denied now
  end
  drop_call(call_id)
  if is_lost then
    note_unanswered(state, now, is_present)
    remember_failure(state, now, call_id, past, not is_uncounted)
  end
end

local closed_us, why = 0, ''
if state.blocked_until > now then closed_us, why = state.blocked_until - now, 'blocked'
elseif state.paused_until > now then closed_us, why = state.paused_until - now, 'paused'
elseif state.breaker == OPEN then closed_us, why = state.open_until - now, 'open'
else
  closed_us = time_to_trial(config, state, now, state.admitted_at)
  why = closed_us > 0 and 'trouble' or ''
end
save(state)
return {
  call and 1 or 0, math.ceil(closed_us / MS), why, is_uncounted and 1 or 0, earlier, math.ceil(retry_after_ms),
  state.troubled_since and 1 or 0,
}
