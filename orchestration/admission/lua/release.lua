-- Wake those who wait and may start now, in the order of their virtual start times; a steward publishes their steps.
-- ARGV: 1 at most  2 wake_ms: how long a woken call has the right of way
-- Output: {ms until there may be more, or -1, member...}
local now = clock()
local c, s = load()
if not c then return { -1 } end
s = s or fresh(c, now)
expire(s, now)
local f = refill(c, s, now)
local most, woken, next_us = tonumber(ARGV[1]), 0, nil
local out = { -1 }

local function heads()
  local found = {}
  local held_back = sick(c, s, now) and s.cb == CLOSED and s.rb - woken < 1
  for _, lane in ipairs({ 'h', 'n', 'r' }) do
    local top = redis.call('ZRANGE', LANES[lane], 0, 0, 'WITHSCORES')
    if top[1] and not (lane == 'r' and held_back) then
      found[#found + 1] = { id = top[1], tag = tonumber(top[2]), lane = lane }
    elseif top[1] then
      next_us = math.min(next_us or 1e12, 200 * MS)
    end
  end
  table.sort(found, function(a, b) return a.tag < b.tag end)
  return found
end

local function wake(head, rec, state)
  leave_line(s, head.lane, head.id)
  rec.s, rec.at = state, now
  if state == 'k' then
    promise(s, need_of(rec), 1)
    s.v = math.max(s.v, head.tag)
  end
  write_record(s, head.id, rec, now + (state == 'k' and tonumber(ARGV[2]) or PAID_MS) * MS)
  out[#out + 1] = rec.m
  woken = woken + 1
end

-- The first in order that fits; when it must wait only for head-room, the first of the high lane may pass it.
local function fits(head, rec)
  if s.bu > now then return 0 end
  if s.pu > now then return s.pu - now end
  if s.cb == OPEN then return s.cu - now end
  if s.cb == HALF_OPEN then
    if #(s.pl or {}) + s.wn >= c.probes then return 100 * MS end
    return s.pk > 0 and 0 or math.max(0, s.pa - now)
  end
  return lack(c, s, f, need_of(rec), rec.hr)
end

while woken < most do
  local found, went = heads(), false
  if #found == 0 then break end
  for n, head in ipairs(found) do
    local rec = record(head.id)
    if not rec or rec.s ~= 'w' then
      leave_line(s, head.lane, head.id)
      went = true
      break
    end
    -- It may have joined before outputs were known: held to all that they may write, calls would go one by one.
    if c.reserve_output == 'expected' and s.p9 > 0 then rec.o = math.min(rec.o, math.ceil(s.p9)) end
    if n == 1 or head.lane == 'h' then
      local us = fits(head, rec)
      if us <= 0 then
        wake(head, rec, s.bu > now and 'p' or 'k')
        went = true
        break
      end
      next_us = math.min(next_us or 1e12, us)
    end
  end
  if not went then break end
end
if woken >= most then next_us = 0 end
s.nq = redis.call('ZCARD', HIGH) + redis.call('ZCARD', REST) + redis.call('ZCARD', RETRY)
if s.nq == 0 then
  redis.call('DEL', FLOWS)
  next_us = nil
end
schedule(s, now, next_us or math.min(LOOK_MS * MS, s.nx - now)) -- what dead workers reserved returns, though nobody calls
save(s)
if next_us then out[1] = math.ceil(next_us / MS) end
return out
