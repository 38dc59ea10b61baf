-- Decide whether a call may start now.
-- ARGV:
--   call_id                  the call's name: a step makes one call at a time
--   member                   the step, as a steward publishes it
--   attempt_id               of the attempt at the step, as `attempt.losses`
--   is_retry                 0 or 1
--   is_first                 0 or 1: the first call of a job that no other job has started
--   fence                    of the claim that asks
--   input_tokens             estimated
--   cached_tokens            input tokens that the provider will probably read from its cache
--   output_tokens            the most that the call may write
--   hold_ms                  the longest wait for which the worker itself waits
--   lasts_ms                 how long the reservation is kept
--   priority                 high, normal, low or replay
--   tenant                   '' = none
--   free_retries             retries of a lineage that start at once
--   free_retries_per_call    more of them for each call of the lineage
--   free_retry_every_ms      interval after which there is one more of them
--   most_retries             most retries of a lineage
--   most_retries_per_call    more of them for each call of the lineage
--   lineage_kept_ms          time to live of the lineage's record
--   lineage_input_tokens     input limit of the whole lineage; '' = unchanged, 0 = no limit
--   lineage_output_tokens    output, likewise
--   ancestry                 JSON of the jobs whose limits bind this one, see members.lua; '' = no other job
-- Output: {'admit', ms to hold, note: '' | probe | dup}
--       | {'wait', ms, reason, in line 0|1, the guessed limit of requests a minute; 0: it was not guessed}
--       | {'deny', ms, reason, its figures as JSON}
--       | {'unconfigured'}
local call_id, member, attempt_id, is_retry, is_first, fence, input_tokens, cached_tokens, output_tokens, hold_ms, lasts_ms, priority, tenant,
  free_retries, free_retries_per_call, free_retry_every_ms, most_retries, most_retries_per_call, lineage_kept_ms,
  lineage_input_tokens, lineage_output_tokens, ancestry = unpack(ARGV)
is_retry = is_retry == '1'
input_tokens, cached_tokens = number('input_tokens', input_tokens), number('cached_tokens', cached_tokens)
output_tokens = number('output_tokens', output_tokens)
hold_ms, lasts_ms = number('hold_ms', hold_ms), number('lasts_ms', lasts_ms)
lineage_kept_ms = number('lineage_kept_ms', lineage_kept_ms)
lineage_input_tokens = optional_number('lineage_input_tokens', lineage_input_tokens)
lineage_output_tokens = optional_number('lineage_output_tokens', lineage_output_tokens)
ancestry = ancestry ~= '' and read_ancestry(ancestry) or nil

local now = clock()
local config, state = load()
if not config then return { 'unconfigured' } end
state = state or new_state(config, now)
expire(state, now)
local rate = refill(config, state, now)
local known = read_call(call_id) -- the record of an earlier request of this step
-- The last failure did not count against the call's `max_retries`. This call is a retry, and its lineage paces it, but can't
-- deny it.
local uncounted = known and (known.uncounted or known.state == FAILED and not known.counted) or nil
local past = known and known.past -- what is known of its earlier failures
is_retry = is_retry or uncounted == true
if known and known.state == FAILED then known = nil end

local input = math.max(0, input_tokens - (config.count_cached and 0 or cached_tokens))
local output = output_tokens
if config.reserve_output == 'none' then output = 0
elseif config.reserve_output == 'expected' and state.output_p90 > 0 then
  output = math.min(output, math.ceil(state.output_p90))
end
local need = needs(input, output)

local function deny(reason, figures, ms)
  if known and known.state == WOKEN then withdraw_promise(state, need_of(known)) end
  if known and known.state ~= LIVE then
    leave_lane(state, call_id, known)
    drop_call(call_id)
  end
  count('denied')
  save(state)
  return { 'deny', math.ceil(ms or 0), reason, cjson.encode(figures) }
end

-- A repeated request. From the same claim: the first reply was lost. From another claim: the earlier worker is dead.
if known and known.state == LIVE then
  if known.fence == fence then
    save(state) -- expired records may have been deleted above
    return { 'admit', math.ceil(math.max(0, (known.starts_at or now) - now) / MS), 'dup' }
  end
  lose_call(state, known)
  drop_call(call_id)
  known = nil
end

if state.blocked_until > now then
  return deny('blocked', { why = state.block_reason }, (state.blocked_until - now) / MS)
end
-- Only a limit that a person has set denies. A call that is larger than a learned limit starts when its bucket is full, and
-- leaves a debt.
for _, resource in ipairs(RESOURCES) do
  local set = config[resource]
  if set > 0 and need[resource] > set and resource ~= REQUESTS then
    return deny('too_large', { resource = resource, need = need[resource], limit = set })
  end
end

-- All jobs of a lineage share one budget of retries. The free retries start at once. After them, retries are paced: one
-- starts every free_retry_every_ms. After most_retries they are denied.
-- The lineage is read only if it can deny the call: if the call is a retry, or if the lineage may have a token limit.
local calls, retries, since, reserved_input, reserved_output, used_input, used_output, most_input, most_output, uncounted_retries =
  0, 0, nil, 0, 0, 0, 0, 0, 0, 0
if is_retry or lineage_input_tokens ~= 0 or lineage_output_tokens ~= 0 then
  calls, retries, since, reserved_input, reserved_output, used_input, used_output, most_input, most_output, uncounted_retries =
    read_lineage()
end
local is_paid = known and known.attempt_id == attempt_id
local must_pay = is_retry and not is_paid
if must_pay then
  if not uncounted and retries - uncounted_retries + 1 > most_retries + most_retries_per_call * calls then
    return deny('lineage_retry_budget', { retries = retries - uncounted_retries, calls = calls })
  end
  local every_us = free_retry_every_ms * MS
  local free = free_retries + free_retries_per_call * calls + math.max(0, now - (since or now)) / every_us
  local over = retries + 1 - free
  if over > 0 then
    local starts_at = now + over * every_us
    count_retry(uncounted)
    keep_lineage(now, lineage_kept_ms)
    local call = {
      state = PACED, member = member, attempt_id = attempt_id, starts_at = starts_at, uncounted = uncounted, past = past,
    }
    write_call(state, call_id, call, starts_at + PAID_MS * MS)
    count('waited')
    return wait_outside_lines(state, 'lineage_paced', (starts_at - now) / MS)
  end
end
if known and known.state == PACED and known.starts_at > now + 5 * MS and is_paid then
  return wait_outside_lines(state, 'lineage_paced', (known.starts_at - now) / MS)
end

-- Steps and tokens of the whole lineage are reserved, not only checked, so that parallel children can't use too many together.
local function wait_for_tokens() -- live calls of the lineage may return tokens that they don't use
  if known and known.state == WOKEN then lose_right_of_way(state, call_id, known, now) end
  count('waited')
  return wait_outside_lines(state, 'lineage_tokens', 1000)
end
if ancestry then
  local reason, figures, may_wait = find_ancestry_limit(ancestry, input_tokens, output_tokens)
  if may_wait then return wait_for_tokens() end
  if reason then return deny(reason, figures) end
end
most_input, most_output = lineage_input_tokens or most_input, lineage_output_tokens or most_output
local is_bound = most_input > 0 or most_output > 0
if is_bound then
  if most_input > 0 and used_input + input_tokens > most_input then
    return deny('lineage_input_tokens', { used = used_input, need = input_tokens, limit = most_input })
  end
  if most_output > 0 and used_output + output_tokens > most_output then
    return deny('lineage_output_tokens', { used = used_output, need = output_tokens, limit = most_output })
  end
  if (most_input > 0 and used_input + reserved_input + input_tokens > most_input)
    or (most_output > 0 and used_output + reserved_output + output_tokens > most_output) then
    return wait_for_tokens()
  end
end

local lane = choose_lane(priority, is_first == '1', is_retry)
local headroom = headroom_of(config, priority)

-- Put the call into its line. If it waited there before, it keeps its place.
local function wait(us, reason, told_us)
  if known and known.state == WOKEN then withdraw_promise(state, need_of(known)) end
  local tag = known and kept_tag(known, lane) or new_tag(config, state, need, lane, priority, tenant)
  if must_pay then
    count_retry(uncounted)
    keep_lineage(now, lineage_kept_ms)
  end
  local call = {
    state = WAITING, member = member, attempt_id = attempt_id, input = input, output = output, tag = tag,
    headroom = headroom, reason = reason, uncounted = uncounted, past = past,
  }
  put_in_lane(state, call_id, call, lane, known)
  schedule_within(state, now, us)
  count('waited')
  save(state)
  return { 'wait', math.ceil((told_us or us) / MS), reason, 1, guessed_limit(config, state) }
end

if state.paused_until > now then return wait(state.paused_until - now, 'paused') end
if state.breaker == OPEN then return wait(state.open_until - now, 'open') end

local is_woken = known and known.state == WOKEN
local is_probe = false
if state.breaker == HALF_OPEN then
  local out = #(state.probe_deadlines or {}) + (is_woken and 0 or state.woken)
  local has_room = out < config.probes and (state.probes_answered > 0 or state.next_probe_at <= now)
  if not has_room then return wait(math.max(50 * MS, state.next_probe_at - now), 'half_open') end
  is_probe = true
end

-- In trouble, calls start one by one. After the first answer of a half-open breaker, probes go as they come.
local to_trial_us = time_to_trial(config, state, now, state.admitted_at)
if to_trial_us > 0 then return wait(to_trial_us, 'trouble') end

-- A new call waits behind the calls of its line and of higher lines. A waiting call keeps its place.
if not is_woken and state.in_line > 0 then
  local ahead = count_ahead(config, state, lane, now)
  -- Let a steward check this line at once. The call need not ask again until it is woken.
  if ahead > 0 then return wait(0, 'queued', ahead * service_time(config, state, need, rate)) end
end
if is_retry and not is_probe and is_sick(config, state, now) and state.retry_balance < 1 then
  local earns_us = (1 - state.retry_balance) / math.max(config.retry_floor_per_s, 0.01) * 1000000
  return wait(math.min(earns_us, config.sick_ms * MS), 'retry_budget')
end
local hold_us = 0
if not is_probe then
  if is_woken then withdraw_promise(state, need_of(known)) end
  local us = time_to_fit(config, state, rate, need, headroom)
  if us > 0 then
    if us > hold_ms * MS then
      if is_woken then promise(state, need_of(known)) end
      return wait(us, 'rate')
    end
    hold_us = us
  end
elseif is_woken then
  withdraw_promise(state, need_of(known))
end

-- The call is admitted. From here on, everything is written.
if known then take_turn(state, call_id, known) end
local n = 1
if must_pay then n = count_retry(uncounted) elseif not is_retry then n = count_call() end
if n % 8 == 1 then keep_lineage(now, lineage_kept_ms) end -- not at every call, because the record is kept for days
if is_bound then reserve_tokens(input_tokens, output_tokens, most_input, most_output) end
local suffixes = ancestry and reserve_ancestry_tokens(ancestry, input_tokens, output_tokens)
if ancestry then begin_turn(ancestry, lineage_kept_ms) end
take(state, need)
note_begun(state)
state.admitted, state.live, state.second_begun = state.admitted + 1, state.live + 1, state.second_begun + 1
state.admitted_at = now + hold_us
if state.troubled_since then state.trials = state.trials + 1 end
if is_retry then
  count('retried')
  if not is_probe and is_sick(config, state, now) then state.retry_balance = math.max(0, state.retry_balance - 1) end
end
local call = {
  state = LIVE, fence = fence, input = input, output = output, generation = state.openings, second = state.second,
  past = past, is_trial = (is_probe or state.troubled_since ~= nil) or nil,
}
if is_probe then
  local patience = math.max(config.probe_min_ms, math.min(config.probe_max_ms, 3 * state.latency_ms)) * MS
  state.probe_deadlines = state.probe_deadlines or {}
  state.probe_deadlines[#state.probe_deadlines + 1] = now + patience
  state.next_probe_at = now + math.max((config.trial_gap_ms or TRIAL_GAP_MS) * MS, patience / config.probes)
  call.probe_deadline = now + patience
end
if hold_us > 0 then call.starts_at = now + hold_us end
if is_bound or ancestry then call.lineage, call.reserved_input, call.reserved_output = LINEAGE, input_tokens, output_tokens end
if ancestry then call.suffixes = suffixes end
write_call(state, call_id, call, now + hold_us + lasts_ms * MS)
save(state)
return { 'admit', math.ceil(hold_us / MS), is_probe and 'probe' or '' }
