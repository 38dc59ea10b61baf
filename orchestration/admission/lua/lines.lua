-- Calls: their records, and the lines in which they wait.

local function read_call(call_id)
  local raw = redis.call('HGET', CALLS, call_id)
  return raw and cmsgpack.unpack(raw) or nil
end

-- What a call needs of each resource. Its record holds only input and output.
local function need_of(call) return needs(call.input, call.output) end

-- Write a call's record, which expires at `expires_at` (us); nil: never.
local function write_call(state, call_id, call, expires_at)
  redis.call('HSET', CALLS, call_id, cmsgpack.pack(call))
  if expires_at then
    redis.call('ZADD', EXPIRY, expires_at, call_id)
    state.next_expiry_at = math.min(state.next_expiry_at, expires_at)
  else
    redis.call('ZREM', EXPIRY, call_id)
  end
end

local function drop_call(call_id)
  redis.call('HDEL', CALLS, call_id)
  redis.call('ZREM', EXPIRY, call_id)
end

-- The lane that a call's record names, or nil.
local function lane_of(call) return call.lane and call.lane .. (call.behind or '') end

-- The lane in which a call waits. A retry belongs to a job that has begun.
local function choose_lane(priority, is_first, is_retry)
  if priority == 'replay' then return REPLAY_LANE end
  if is_retry then return RETRY_LANE end
  if priority == 'high' then return is_first and HIGH_FIRST_LANE or HIGH_LANE end
  return is_first and REST_FIRST_LANE or REST_LANE
end

-- The share of each bucket that a call leaves to higher priorities. A replay leaves half, so that a live call seldom waits for
-- one.
local function headroom_of(config, priority)
  if priority == 'high' then return 0 end
  return priority == 'replay' and math.max(config.headroom, REPLAY_HEADROOM) or config.headroom
end

-- First calls and replays wait in lanes behind the others. Their virtual time is another one: it stands still while calls of
-- jobs that have begun are served. With one time for all, a tenant's new job would wait behind all older ones.
local function is_behind(lane) return #lane > 1 end

-- The place that a call keeps when it waits again: nil if it has none, or if its new lane has another virtual time.
local function kept_tag(call, lane)
  return call.tag and call.lane and is_behind(lane_of(call)) == is_behind(lane) and call.tag or nil
end

-- Set the virtual time to that of the call that is served now.
local function advance(state, lane, tag)
  if is_behind(lane) then state.time_behind = math.max(state.time_behind or 0, tag)
  else state.virtual_time = math.max(state.virtual_time, tag) end
end

local function waiting_in(lane) return redis.call('ZCARD', LANES[lane]) end

-- Does no retry leave its line? None does while the downstream fails and its retry budget is used up.
local function holds_retries(config, state, now, woken)
  return is_sick(config, state, now) and state.breaker == CLOSED and state.retry_balance - woken < 1
end

-- How many calls a new call of this lane waits behind. A retry waits behind all calls of jobs that have begun. A job's first
-- call waits behind these, too. A replay waits behind all.
local function count_ahead(config, state, lane, now)
  local ahead = waiting_in(HIGH_LANE)
  if lane == HIGH_LANE then return ahead end
  ahead = ahead + waiting_in(HIGH_FIRST_LANE)
  if lane == HIGH_FIRST_LANE then return ahead end
  ahead = ahead + waiting_in(REST_LANE)
  if lane == REST_LANE then return ahead end
  if lane == RETRY_LANE or not holds_retries(config, state, now, 0) then ahead = ahead + waiting_in(RETRY_LANE) end
  if lane == RETRY_LANE then return ahead end
  ahead = ahead + waiting_in(REST_FIRST_LANE)
  return lane == REPLAY_LANE and ahead + waiting_in(REPLAY_LANE) or ahead
end

local function enter_line(state, lane, tag, call_id)
  state.in_line = state.in_line + redis.call('ZADD', LANES[lane], tag, call_id)
end

local function leave_line(state, lane, call_id)
  state.in_line = math.max(0, state.in_line - redis.call('ZREM', LANES[lane], call_id))
end

-- Take a call out of the lane that its record names, unless it stays there.
local function leave_lane(state, call_id, call, stays_in)
  local lane = lane_of(call)
  if lane and lane ~= stays_in then leave_line(state, lane, call_id) end
end

-- Let a call wait in a lane. It may have waited in another one, as a first try.
local function put_in_lane(state, call_id, call, lane, known)
  call.lane, call.behind = string.sub(lane, 1, 1), #lane > 1 and string.sub(lane, 2) or nil
  write_call(state, call_id, call)
  if known then leave_lane(state, call_id, known, lane) end
  enter_line(state, lane, call.tag, call_id)
end

-- Take an admitted call out of its lane. The lane has come to it.
local function take_turn(state, call_id, call)
  leave_lane(state, call_id, call)
  if call.tag and call.lane then advance(state, lane_of(call), call.tag) end
end

-- A new call's place in its line. A line is in the order of virtual start times (start-time fair queueing, Goyal et al. 1996):
-- the next call of a flow starts when its last one would have finished at the flow's share.
local function new_tag(config, state, need, lane, priority, tenant)
  local cost = service_time(config, state, need, 1)
  if cost == 0 then cost = 1000 end
  local weights = load_weights()
  local weight = (weights.priorities[priority] or 1) * (weights.tenants[tenant] or 1)
  local flow, time = tenant .. '|' .. priority, state.virtual_time
  if is_behind(lane) then
    flow, time = lane .. '|' .. flow, state.time_behind or 0
    -- The lanes behind share one time. A lane that was not served for a while holds calls with
    -- an older time: a new flow starts at the time of its first call.
    local first = redis.call('ZRANGE', LANES[lane], 0, 0, 'WITHSCORES')
    if first[2] then time = math.min(time, tonumber(first[2])) end
  end
  local tag = math.max(time, tonumber(redis.call('HGET', FLOWS, flow) or 0))
  redis.call('HSET', FLOWS, flow, string.format('%.0f', tag + cost / weight))
  return tag
end

-- The reply to a call that waits without a place in a line.
local function wait_outside_lines(state, reason, ms)
  save(state)
  return { 'wait', math.ceil(ms), reason, 0, 0 }
end

-- Give up a live call whose worker is dead, since no worker will settle it. Its reservation is charged: it may have been made.
local function lose_call(state, call)
  state.live = math.max(0, state.live - 1)
  count('lost')
  spend_tokens(call, call.reserved_input, call.reserved_output)
end

-- Let a woken call that did not start keep its place, but let other calls pass it.
local function lose_right_of_way(state, call_id, call, now)
  withdraw_promise(state, need_of(call))
  call.state, call.starts_at = PACED, now
  write_call(state, call_id, call, now + PAID_MS * MS)
end

-- Delete expired records.
local function expire(state, now)
  if state.next_expiry_at > now then return end
  for _, call_id in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, 50)) do
    local call = read_call(call_id)
    if call and call.state == LIVE then lose_call(state, call) end
    if call and call.state == WOKEN then -- it did not start in time: its worker is slow, or its job has ended
      lose_right_of_way(state, call_id, call, now)
    else
      drop_call(call_id)
    end
  end
  state.next_expiry_at = tonumber(redis.call('ZRANGE', EXPIRY, 0, 0, 'WITHSCORES')[2] or NO_EXPIRY)
end

-- Let a steward check the lines in `us`.
local function schedule(state, now, us)
  redis.call('ZADD', INDEX, math.floor((now + math.max(0, us)) / MS), state.name)
end

-- The same, unless a steward checks them before that anyway.
local function schedule_within(state, now, us)
  local due = tonumber(redis.call('ZSCORE', INDEX, state.name) or NEVER)
  if due * MS > now + us then schedule(state, now, us) end
end
