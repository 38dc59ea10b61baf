-- Calls: their records, and the lines they wait in.

local function record(id)
  local raw = redis.call('HGET', CALLS, id)
  return raw and cmsgpack.unpack(raw) or nil
end

-- What a record needs of each resource: it keeps input and output only.
local function need_of(rec) return needs(rec.i, rec.o) end

local function write_record(s, id, rec, over)
  redis.call('HSET', CALLS, id, cmsgpack.pack(rec))
  if over then
    redis.call('ZADD', EXPIRY, over, id)
    s.nx = math.min(s.nx, over)
  else
    redis.call('ZREM', EXPIRY, id)
  end
end

local function drop_record(id)
  redis.call('HDEL', CALLS, id)
  redis.call('ZREM', EXPIRY, id)
end

local function enter_line(s, lane, tag, id) s.nq = s.nq + redis.call('ZADD', LANES[lane], tag, id) end

local function leave_line(s, lane, id) s.nq = math.max(0, s.nq - redis.call('ZREM', LANES[lane], id)) end

-- Move what a call reserved of its lineage's tokens to what the lineage has used.
local function spend(rec, input, output)
  redis.call('HINCRBYFLOAT', rec.root, 'ri', -rec.li)
  redis.call('HINCRBYFLOAT', rec.root, 'ro', -rec.lo)
  redis.call('HINCRBYFLOAT', rec.root, 'ui', input)
  redis.call('HINCRBYFLOAT', rec.root, 'uo', output)
end

-- A live call that nobody will settle: its worker is dead. What it reserved stays charged, for it may have been made.
local function lose(s, rec)
  s.live = math.max(0, s.live - 1)
  count('lost')
  if rec.root then
    spend(rec, rec.li, rec.lo)
  end
end

-- Records whose time is over.
local function expire(s, now)
  if s.nx > now then return end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, 50)) do
    local rec = record(id)
    if rec and rec.s == 'l' then lose(s, rec) end
    if rec and rec.s == 'k' then -- its worker is slow, or its job over: it keeps its place, but holds nobody up
      promise(s, need_of(rec), -1)
      rec.s, rec.at = 'p', now
      write_record(s, id, rec, now + PAID_MS * MS)
    else
      drop_record(id)
    end
  end
  s.nx = tonumber(redis.call('ZRANGE', EXPIRY, 0, 0, 'WITHSCORES')[2] or NO_EXPIRY)
end

-- ms from now until the steward should look again
local function schedule(s, now, us)
  redis.call('ZADD', INDEX, math.floor((now + math.max(0, us)) / MS), s.name)
end
