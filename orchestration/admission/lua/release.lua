-- Wake waiting calls that may start now, in the order of their virtual start times. A steward publishes their steps.
-- ARGV:
--   at_most   calls to wake
--   wake_ms   how long a woken call may start before others
-- Output: {ms until there may be more to release, or -1: no call waits, member...}
local at_most, wake_ms = unpack(ARGV)
at_most, wake_ms = tonumber(at_most), tonumber(wake_ms)

local now = clock()
local config, state = load()
if not config then return { -1 } end
state = state or new_state(config, now)
expire(state, now)
local rate = refill(config, state, now)
local woken, next_us = 0, nil
local reply = { -1 }

-- The first call of a lane, or nil. `turn` orders the heads of several lanes.
local function head_of(lane)
  local first = redis.call('ZRANGE', LANES[lane], 0, 0, 'WITHSCORES')
  if not first[1] then return nil end
  if (lane == RETRY_LANE or lane == REPLAY_LANE) and holds_retries(config, state, now, woken) then
    next_us = math.min(next_us or 1e12, 200 * MS)
    return nil
  end
  return { call_id = first[1], tag = tonumber(first[2]), turn = tonumber(first[2]), lane = lane }
end

-- All first calls of priority high are one flow among the calls of jobs that have begun.
local function turn_of_high_first()
  return math.max(state.virtual_time, tonumber(redis.call('HGET', FLOWS, HIGH_FIRST_LANE) or 0))
end

-- The first call of each lane that has its turn, in order. Calls of jobs that have begun go first, and replays go last.
local function heads()
  local found = {}
  local function add(head) found[#found + 1] = head end
  local high = head_of(HIGH_LANE)
  add(high)
  add(head_of(REST_LANE))
  add(head_of(RETRY_LANE))
  if not high then
    local high_first = head_of(HIGH_FIRST_LANE)
    if #found == 0 then add(head_of(REST_FIRST_LANE)) elseif high_first then high_first.turn = turn_of_high_first() end
    add(high_first)
  end
  if #found == 0 then add(head_of(REPLAY_LANE)) end
  table.sort(found, function(a, b) return a.turn < b.turn end)
  return found
end

local function wake(head, call)
  leave_line(state, head.lane, head.call_id)
  local may_start = state.blocked_until <= now -- while blocked, calls are woken and then denied
  call.state, call.starts_at = may_start and WOKEN or PACED, now
  if may_start then
    state.woken_at = now
    promise(state, need_of(call))
    advance(state, head.lane, head.tag)
    if head.lane == HIGH_FIRST_LANE then
      local weight = load_weights().priorities.high or 1
      local finish = turn_of_high_first() + service_time(config, state, need_of(call), 1) / weight
      redis.call('HSET', FLOWS, HIGH_FIRST_LANE, string.format('%.0f', finish))
    end
  end
  write_call(state, head.call_id, call, now + (may_start and wake_ms or PAID_MS) * MS)
  reply[#reply + 1] = call.member
  woken = woken + 1
end

-- How many us until the call may start.
local function time_to_start(call)
  if state.blocked_until > now then return 0 end
  if state.paused_until > now then return state.paused_until - now end
  if state.breaker == OPEN then return state.open_until - now end
  -- An answer to a live call ends the trouble, and then more calls may start: look again soon.
  local us = time_to_trial(config, state, now, last_start(state))
  if us > 0 then return state.live > 0 and math.min(us, 100 * MS) or us end
  if state.breaker == HALF_OPEN then
    if #(state.probe_deadlines or {}) + state.woken >= config.probes then return 100 * MS end
    return state.probes_answered > 0 and 0 or math.max(0, state.next_probe_at - now)
  end
  return time_to_fit(config, state, rate, need_of(call), call.headroom)
end

-- Wake the first call in order, if it fits. If only the head-room delays it, the first call of the high line may pass it.
local function wake_next()
  for n, head in ipairs(heads()) do
    local call = read_call(head.call_id)
    if not call or call.state ~= WAITING then
      leave_line(state, head.lane, head.call_id)
      return true
    end
    -- A call may have joined the line before the usual output was known. With its maximum, calls would start one by one.
    if config.reserve_output == 'expected' and state.output_p90 > 0 then
      call.output = math.min(call.output, math.ceil(state.output_p90))
    end
    if n == 1 or head.lane == HIGH_LANE or head.lane == HIGH_FIRST_LANE then
      local us = time_to_start(call)
      if us <= 0 then
        wake(head, call)
        return true
      end
      next_us = math.min(next_us or 1e12, us)
    end
  end
  return false
end

while woken < at_most and wake_next() do end
if woken >= at_most then next_us = 0 end
state.in_line = 0
for lane in pairs(LANES) do state.in_line = state.in_line + waiting_in(lane) end
if state.in_line == 0 then
  redis.call('DEL', FLOWS)
  next_us = nil
end
-- Check again later even if no call waits, so that reservations of dead workers are given up.
schedule(state, now, next_us or math.min(LOOK_MS * MS, state.next_expiry_at - now))
save(state)
if next_us then reply[1] = math.ceil(next_us / MS) end
return reply
