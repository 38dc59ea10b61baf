-- May this call start now?
-- ARGV: 1 call  2 member  3 try  4 retry 0|1  5 fence  6 input  7 of it cached  8 output at most  9 hold_ms  10 lasts_ms
--       11 priority  12 tenant  13 lineage base  14 ratio  15 refill_ms  16 hard base  17 hard ratio  18 ttl_ms
--       19, 20 input and output tokens that the whole lineage may use ('' = as said before, 0 = any number)
-- Output: {'admit', ms to hold, reason} | {'wait', ms, reason, queued 0|1} | {'deny', ms, reason} | {'unconfigured'}
local id, member, try, retry, fence = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
local refused = wrong(ARGV, 6, 10, true) or wrong(ARGV, 18, 18, true) or wrong(ARGV, 19, 20)
if refused then return refused end
local now = clock()
local c, s = load()
if not c then return { 'unconfigured' } end
s = s or fresh(c, now)
expire(s, now)
local f = refill(c, s, now)
local rec = record(id)
local free = rec and (rec.s == 'f' or rec.fr) or nil -- its last try was refused, and did not count as one of its own
retry = retry or free == true
if rec and rec.s == 'f' then rec = nil end

local input = math.max(0, ARGV[6] - (c.count_cached and 0 or ARGV[7]))
local output = tonumber(ARGV[8])
if c.reserve_output == 'none' then output = 0
elseif c.reserve_output == 'expected' and s.p9 > 0 then output = math.min(output, math.ceil(s.p9)) end
local need = needs(input, output)

local function deny(ms, reason)
  if rec and rec.s == 'k' then promise(s, need_of(rec), -1) end
  if rec and rec.s ~= 'l' then
    if rec.lane then leave_line(s, rec.lane, id) end
    drop_record(id)
  end
  count('denied')
  save(s)
  return { 'deny', math.ceil(ms), reason }
end

-- Asked again by the same claim: its reply was lost. By another one: the worker of the earlier one is dead.
if rec and rec.s == 'l' then
  if rec.fe == fence then
    save(s) -- what was over may have been cleared away above
    return { 'admit', math.ceil(math.max(0, (rec.at or now) - now) / MS), 'dup' }
  end
  lose(s, rec)
  drop_record(id)
  rec = nil
end

if s.bu > now then return deny((s.bu - now) / MS, 'blocked: ' .. s.br) end
for _, r in ipairs(RESOURCES) do
  local l = limit(c, s, r)
  if l > 0 and need[r] > l and r ~= 'q' then return deny(0, 'too_large: ' .. r .. ' ' .. need[r] .. ' ' .. l) end
end

-- One retry budget for a root job and all it caused: beyond soft a retry is paced, one each refill_ms; beyond hard it is denied.
-- The lineage is read only when it can say no: for a retry, or when it may have a token limit.
local L = KEYS[9]
local v = {}
if retry or ARGV[19] ~= '0' or ARGV[20] ~= '0' then
  v = redis.call('HMGET', L, 'n', 'u', 't', 'ri', 'ro', 'ui', 'uo', 'bi', 'bo')
end
local paid = rec and rec.y == try
local book = retry and not paid
if book then
  local n, u, t = tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or now)
  if u + 1 > ARGV[16] + ARGV[17] * n then return deny(0, 'lineage_retry_budget: ' .. u .. ' ' .. n) end
  local over = u + 1 - (ARGV[13] + ARGV[14] * n + math.max(0, now - t) / (ARGV[15] * MS))
  if over > 0 then
    local at = now + over * ARGV[15] * MS
    redis.call('HINCRBY', L, 'u', 1)
    redis.call('HSETNX', L, 't', string.format('%.0f', now))
    redis.call('PEXPIRE', L, ARGV[18])
    write_record(s, id, { s = 'p', m = member, y = try, at = at, fr = free }, at + PAID_MS * MS)
    count('waited')
    save(s)
    return { 'wait', math.ceil((at - now) / MS), 'lineage_paced', 0 }
  end
end
if rec and rec.s == 'p' and rec.at > now + 5 * MS and paid then
  save(s)
  return { 'wait', math.ceil((rec.at - now) / MS), 'lineage_paced', 0 }
end

-- Tokens of the whole lineage: reserved, not checked, so that parallel children can't overshoot.
local bi = ARGV[19] ~= '' and tonumber(ARGV[19]) or tonumber(v[8] or 0)
local bo = ARGV[20] ~= '' and tonumber(ARGV[20]) or tonumber(v[9] or 0)
local bound = bi > 0 or bo > 0
local reserve_i, reserve_o = tonumber(ARGV[6]), tonumber(ARGV[8])
if bound then
  local ri, ro, ui, uo = tonumber(v[4] or 0), tonumber(v[5] or 0), tonumber(v[6] or 0), tonumber(v[7] or 0)
  local over_i, over_o = bi > 0 and ui + reserve_i > bi, bo > 0 and uo + reserve_o > bo
  if over_i then return deny(0, 'lineage_input_tokens: ' .. ui .. ' ' .. reserve_i .. ' ' .. bi) end
  if over_o then return deny(0, 'lineage_output_tokens: ' .. uo .. ' ' .. reserve_o .. ' ' .. bo) end
  if (bi > 0 and ui + ri + reserve_i > bi) or (bo > 0 and uo + ro + reserve_o > bo) then
    if rec and rec.s == 'k' then -- it keeps its place, and holds nobody up meanwhile
      promise(s, need_of(rec), -1)
      rec.s, rec.at = 'p', now
      write_record(s, id, rec, now + PAID_MS * MS)
    end
    count('waited') -- others are in flight, and may give back what they don't use
    save(s)
    return { 'wait', 1000, 'lineage_tokens', 0 }
  end
end

local function charge_lineage()
  local n = (book or not retry) and redis.call('HINCRBY', L, book and 'u' or 'n', 1) or 1
  if n % 8 == 1 then -- not every time: its life is days
    redis.call('HSETNX', L, 't', string.format('%.0f', now))
    redis.call('PEXPIRE', L, ARGV[18])
  end
  if bound then
    redis.call('HINCRBYFLOAT', L, 'ri', reserve_i)
    redis.call('HINCRBYFLOAT', L, 'ro', reserve_o)
    redis.call('HSET', L, 'bi', string.format('%.0f', bi), 'bo', string.format('%.0f', bo))
  end
end

local high = ARGV[11] == 'high'
local lane = retry and 'r' or high and 'h' or 'n'
local headroom = high and 0 or c.headroom

-- Put the call into its line, or back to the place it had. A line is in the order of virtual start times (start-time fair
-- queueing, Goyal et al. 1996): a flow's next call starts when its last one would have finished at the flow's share.
local function wait(us, reason, said_us)
  local tag = rec and rec.tag
  if rec and rec.s == 'k' then promise(s, need_of(rec), -1) end
  if not tag then
    local cost = 0
    for _, r in ipairs(RESOURCES) do
      local l = limit(c, s, r)
      if l > 0 then cost = math.max(cost, need[r] / l * MINUTE) end
    end
    if cost == 0 then cost = 1000 end
    local weights = cmsgpack.unpack(redis.call('HGET', STATE, 'weights'))
    local flow = ARGV[12] .. '|' .. ARGV[11]
    local weight = (weights.priorities[ARGV[11]] or 1) * (weights.tenants[ARGV[12]] or 1)
    tag = math.max(s.v, tonumber(redis.call('HGET', FLOWS, flow) or 0))
    redis.call('HSET', FLOWS, flow, string.format('%.0f', tag + cost / weight))
  end
  if book then
    redis.call('HINCRBY', L, 'u', 1)
    redis.call('HSETNX', L, 't', string.format('%.0f', now))
    redis.call('PEXPIRE', L, ARGV[18])
  end
  write_record(s, id, { s = 'w', m = member, y = try, i = input, o = output, tag = tag, lane = lane, hr = headroom, w = reason, fr = free })
  if rec and rec.lane and rec.lane ~= lane then leave_line(s, rec.lane, id) end -- it waited as a first try
  enter_line(s, lane, tag, id)
  local due = tonumber(redis.call('ZSCORE', INDEX, s.name) or NEVER)
  if due * MS > now + us then schedule(s, now, us) end
  count('waited')
  save(s)
  return { 'wait', math.ceil((said_us or us) / MS), reason, 1 }
end

if s.pu > now then return wait(s.pu - now, 'paused') end
if s.cb == OPEN then return wait(s.cu - now, 'open') end

local woken = rec and rec.s == 'k'
local probe = false
if s.cb == HALF_OPEN then
  local room = #(s.pl or {}) + (woken and 0 or s.wn) < c.probes and (s.pk > 0 or s.pa <= now)
  if not room then return wait(math.max(50 * MS, s.pa - now), 'half_open') end
  probe = true
end

-- Behind those who wait, except in a higher lane; a retry behind everybody. Who waits already keeps his place.
if not woken and s.nq > 0 then
  local ahead = redis.call('ZCARD', HIGH)
  if lane ~= 'h' then ahead = ahead + redis.call('ZCARD', REST) end
  if lane == 'r' then ahead = ahead + redis.call('ZCARD', RETRY) end
  if ahead > 0 then -- a steward looks at once; the call itself need not ask again before its turn
    local each = 0
    for _, r in ipairs(RESOURCES) do
      local l = limit(c, s, r)
      if l > 0 then each = math.max(each, need[r] / (l * f) * MINUTE) end
    end
    return wait(0, 'queued', ahead * each)
  end
end
if retry and not probe and sick(c, s, now) and s.rb < 1 then
  return wait(math.min((1 - s.rb) / math.max(c.retry_floor, 0.01) * 1000000, c.sick_ms * MS), 'retry_budget')
end
local hold = 0
if not probe then
  if woken then promise(s, need_of(rec), -1) end
  local us = lack(c, s, f, need, headroom)
  if us > 0 then
    if us > ARGV[9] * MS then
      if woken then promise(s, need_of(rec), 1) end
      return wait(us, 'rate')
    end
    hold = us
  end
elseif woken then
  promise(s, need_of(rec), -1)
end

-- Admitted: all writes from here on.
if rec and rec.lane then leave_line(s, rec.lane, id) end
if rec and rec.tag then s.v = math.max(s.v, rec.tag) end
charge_lineage()
take(s, need, 1)
s.na, s.live, s.wa = s.na + 1, s.live + 1, s.wa + 1
if retry then
  count('retried')
  if not probe and sick(c, s, now) then s.rb = math.max(0, s.rb - 1) end
end
if probe then
  local patience = math.max(c.probe_min_ms, math.min(c.probe_max_ms, 3 * s.la)) * MS
  s.pl = s.pl or {}
  s.pl[#s.pl + 1] = now + patience
  s.pa = now + patience / c.probes
end
local live = { s = 'l', fe = fence, i = input, o = output, g = s.g, w = s.w }
if probe then live.p = s.pl[#s.pl] end
if hold > 0 then live.at = now + hold end
if bound then live.root, live.li, live.lo = L, reserve_i, reserve_o end
write_record(s, id, live, now + hold + ARGV[10] * MS)
save(s)
return { 'admit', math.ceil(hold / MS), probe and 'probe' or '' }
