-- Begin a step: take it under a new fence and a lease, and get everything needed to work, in one round trip.
-- ARGV: 1 job  2 step  3 nonce (the same again means: my reply was lost)  4 lease_ms  5 max losses  6 member
--       7 known epoch  8 known length of the log  9 SHA-1 of the last entry known: a server that crashed may have lost it
-- Output: {verdict} or
--   {'claimed', now, fence, attempt, losses, interrupted, ending, verdict, groups, call|'', flags|'', epoch, entries left out, log entries, job fields,
--   anchor|'', memory|'' (also when the epoch is the known one)}
local job, step, nonce = ARGV[1], ARGV[2], ARGV[3]
local is_model = not string.find(step, '.', 1, true)
local f = redis.call('HMGET', J, 'status', 'max_steps', 'deadline_ms', 'cancel', 'fence')
local status, cancel = f[1], f[4]
if status ~= 'queued' and status ~= 'running' and status ~= 'parked' then
  settle_member(ARGV[6])
  return { 'gone' }
end

local now = clock()
local s = redis.call('HMGET', S, 'active', 'groups', 'epoch', 'flags', 'anchor')
local row = read_row(step)
if status == 'queued' then
  if s[1] ~= job then return { 'not_yet' } end
  if not row and step == '1' then
    row = { state = 'pending', fence = '0', till = 0, attempt = 0, losses = 0, nonce = '', verdict = '' }
  end
end
if not row then
  settle_member(ARGV[6])
  return { 'gone' }
end

local again = row.state == 'started' and (row.nonce == nonce or row.nonce == '!' .. nonce)
local lost = row.state == 'started' and not again
if lost and row.till > now then return { 'busy', row.till - now } end
local interrupted = lost or mark(row) ~= ''
if row.state == 'pending' and row.till > now and not cancel then return { 'early', row.till - now } end
if (row.state == 'parked' and not cancel) or row.state == 'dead' then
  settle_member(ARGV[6])
  return { 'gone' }
end

local fence, losses = row.fence, row.losses
if lost then losses = losses + 1 end
if not again then
  -- Larger than any fence given before, even one that a crash of the server took back: counted from the clock.
  fence = string.format('%d', math.max(tonumber(f[5] or '0') + 1, now))
  redis.call('HSET', J, 'fence', fence)
end

local groups, activated = tonumber(s[2] or '0'), status == 'queued'
if activated then
  groups = groups + 1
  local timeout = redis.call('HGET', J, 'timeout_ms')
  f[3] = string.format('%d', now + timeout)
  redis.call('RPUSH', L, '{"role":"user","group":' .. groups .. ',"text":' .. redis.call('HGET', J, 'input') .. '}')
  redis.call('HSET', S, 'groups', groups)
  redis.call('HSET', J, 'status', 'running', 'started_ms', string.format('%d', now), 'deadline_ms', f[3])
  redis.call('HDEL', J, 'input')
end

local ending = ''
if cancel then ending = 'cancelled'
elseif f[3] and now > tonumber(f[3]) then ending = 'timed_out'
elseif is_model and tonumber(step) > tonumber(f[2]) then ending = 'step_limit'
elseif losses >= tonumber(ARGV[5]) then ending = 'worker_lost' end

write_row(step, 'started', fence, now + ARGV[4], row.attempt, losses, (interrupted and '!' or '') .. nonce, row.verdict)
redis.call('ZREM', OWED, ARGV[6])
redis.call('ZADD', DUE, now + ARGV[4], ARGV[6])
if is_model and ending == '' then redis.call('HSET', J, 'turn', step) end
if status ~= 'parked' then redis.call('HDEL', J, 'waiting') end
if row.state == 'parked' then redis.call('HINCRBY', J, 'parked', -1) end
if activated then keep_new() else keep() end

local call, entries, from, memory = '', {}, 0, ''
if is_model then
  if (s[3] or '0') == ARGV[7] and ARGV[8] ~= '0' then
    local last = redis.call('LINDEX', L, ARGV[8] - 1)
    if last and redis.sha1hex(last) == ARGV[9] then from = tonumber(ARGV[8]) end
  end
  entries = redis.call('LRANGE', L, from, -1)
  if s[3] and (s[3] ~= ARGV[7] or from == 0) then memory = redis.call('GET', S .. ':memory') or '' end
  if s[3] then
    redis.call('EXPIRE', S .. ':memory', KEPT_S, 'GT')
    redis.call('EXPIRE', S .. ':archive', KEPT_S, 'GT')
  end
  if s[4] then redis.call('EXPIRE', S .. ':results', KEPT_S, 'GT') end
  if s[3] or s[4] then redis.call('EXPIRE', S .. ':originals', KEPT_S, 'GT') end
else
  call = redis.call('HGET', R, step .. ':call') or ''
end
return { 'claimed', now, fence, row.attempt, losses, interrupted and 1 or 0, ending, row.verdict, groups, call, s[4] or '',
         s[3] or '0', from, entries, redis.call('HGETALL', J), s[5] or '', memory }
