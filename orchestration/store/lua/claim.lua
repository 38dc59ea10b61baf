-- Claim a step under a new fence and a lease. Returns everything that the work needs, in one round trip.
-- Shared: prelude, losses
-- ARGV:
--   job
--   step
--   nonce             of this claim; the same nonce again means that the first reply was lost
--   lease_ms
--   max_losses        losses without proof, after which the job ends
--   member            of the step, in due and owed
--   known_epoch       of the caller's copy of the log; -1: it has none
--   known_length      of the copy, in entries
--   known_digest      SHA-1 of the copy's last entry; a server that crashed may have lost that entry
-- Output: {refusal} or
--   {'claimed', now, fence, attempt, losses, interrupted, ending, decision, groups, call|'', flags|'', epoch, entries left out,
--   log entries, job fields, anchor|'', memory|'' (also when the epoch is the known one), lost claims|''}
local job, step, nonce, lease_ms, max_losses, member, known_epoch, known_length, known_digest = unpack(ARGV)
local is_model = not string.find(step, '.', 1, true)
local status, max_steps, deadline_ms, cancel, last_fence, waiting, lane =
  unpack(redis.call('HMGET', JOB, 'status', 'max_steps', 'deadline_ms', 'cancel', 'fence', 'waiting', 'lane'))
if lane and string.sub(member, 1, #lane + 1) ~= lane .. '|' then -- the message is older than the job's last replay
  settle_member(member)
  member = string.gsub(member, '^%a+', lane)
end
if not status or has_ended(status) then
  settle_member(member)
  return { 'gone' }
end
if not may_run(status) then return redis.error_reply('UNREADABLE the status of a later release') end

local now = clock()
local active, groups, epoch, flags, anchor =
  unpack(redis.call('HMGET', SESSION, 'active', 'groups', 'epoch', 'flags', 'anchor'))
local row = read_row(step)
if status == 'queued' then
  if active ~= job then return { 'not_yet' } end
  if not row and step == '1' then
    row = { state = 'pending', fence = '0', till = 0, attempt = 0, losses = 0, nonce = '', decision = '' }
  end
end
if not row then
  settle_member(member)
  return { 'gone' }
end

local again = row.state == 'started' and (row.nonce == nonce or row.nonce == '!' .. nonce)
local lost = row.state == 'started' and not again
if lost and row.till > now then return { 'busy', row.till - now } end
local interrupted = lost or mark(row) ~= ''
if row.state == 'pending' and row.till > now and not cancel then return { 'early', row.till - now } end
if (row.state == 'parked' and not cancel) or row.state == 'dead' then
  settle_member(member)
  return { 'gone' }
end
if row.state ~= 'pending' and row.state ~= 'started' and row.state ~= 'waiting' and row.state ~= 'parked' then
  return redis.error_reply('UNREADABLE the state of a step')
end

local fence, losses, lost_claims = row.fence, row.losses, ''
if lost then losses = losses + 1 end
if losses > 0 then lost_claims = read_losses(step) end
if lost then lost_claims = lost_claims .. describe_loss(row, now, lease_ms) end
if not again then
  -- The fence comes from the clock. So it is larger than any earlier fence, even one that the server forgot in a crash.
  fence = string.format('%d', math.max(tonumber(last_fence or '0') + 1, now))
end

groups = tonumber(groups or '0')
-- This worker's Redis user may lack the right to some writes. So the row and the due time are written first. If a later write
-- fails, the step stays in due or owed for another worker.
write_row(step, 'started', fence, now + lease_ms, row.attempt, losses, (interrupted and '!' or '') .. nonce, row.decision)
redis.call('ZADD', DUE, now + lease_ms, member)
redis.call('ZREM', OWED, member)
if lost then redis.call('HSET', STEPS, step .. ':losses', lost_claims) end

local activated = status == 'queued'
if activated then
  groups = groups + 1
  local timeout = redis.call('HGET', JOB, 'timeout_ms')
  deadline_ms = string.format('%d', now + timeout)
  redis.call('RPUSH', LOG, '{"role":"user","group":' .. groups .. ',"text":' .. redis.call('HGET', JOB, 'input') .. '}')
  redis.call('HSET', SESSION, 'groups', groups)
  redis.call('HSET', JOB, 'status', 'running', 'started_ms', string.format('%d', now), 'deadline_ms', deadline_ms)
  redis.call('EXPIRE', STEPS, KEPT_S, 'NX') -- these keys may be new
  redis.call('EXPIRE', LOG, KEPT_S, 'NX')
  redis.call('HDEL', JOB, 'input')
end

local ending = ''
if cancel then ending = 'cancelled'
elseif deadline_ms and now > tonumber(deadline_ms) then ending = 'timed_out'
elseif is_model and tonumber(step) > tonumber(max_steps) then ending = 'step_limit'
elseif losses > 0 and count_unproven(lost_claims, losses) >= tonumber(max_losses) then ending = 'worker_lost' end

if is_model and ending == '' then
  redis.call('HSET', JOB, 'fence', fence, 'turn', step) -- no other step runs during a model turn, so its fence is the last one
elseif not again then
  redis.call('HSET', JOB, 'fence', fence)
end
if waiting and status ~= 'parked' then redis.call('HDEL', JOB, 'waiting') end
if row.state == 'parked' then redis.call('HINCRBY', JOB, 'parked', -1) end
keep()

local call, entries, from, memory = '', {}, 0, ''
if is_model then
  if (epoch or '0') == known_epoch and known_length ~= '0' then
    local last = redis.call('LINDEX', LOG, known_length - 1)
    if last and redis.sha1hex(last) == known_digest then from = tonumber(known_length) end
  end
  entries = redis.call('LRANGE', LOG, from, -1)
  if epoch and (epoch ~= known_epoch or from == 0) then memory = redis.call('GET', SESSION .. ':memory') or '' end
  if epoch then
    redis.call('EXPIRE', SESSION .. ':memory', KEPT_S, 'GT')
    redis.call('EXPIRE', SESSION .. ':archive', KEPT_S, 'GT')
  end
  if flags then redis.call('EXPIRE', SESSION .. ':results', KEPT_S, 'GT') end
  if epoch or flags then redis.call('EXPIRE', SESSION .. ':originals', KEPT_S, 'GT') end
else
  call = redis.call('HGET', STEPS, step .. ':call') or ''
end
return { 'claimed', now, fence, row.attempt, losses, interrupted and 1 or 0, ending, row.decision, groups, call, flags or '',
         epoch or '0', from, entries, redis.call('HGETALL', JOB), anchor or '', memory, lost_claims }
