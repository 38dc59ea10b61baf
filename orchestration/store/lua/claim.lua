-- Claim a step under a new fence and a lease. Returns everything that the work needs, in one round trip.
-- Shared: names, prelude, lost, job_clock, losses, endings
-- ARGV:
--   job
--   step
--   nonce             of this claim; the same nonce again means that the first reply was lost
--   lease_ms
--   max_losses        losses without proof, after which the job ends
--   max_alone         those of them that the step had while it ran alone
--   member            of the step, in due and owed
--   known_epoch       of the caller's copy of the log; -1: it has none
--   known_length      of the copy, in entries
--   known_digest      SHA-1 of the copy's last entry; a server that crashed may have lost that entry
-- Output: {refusal} or {'lost', what: job | steps | log | memory | session} or
--   {'claimed', now, fence, attempt, losses, interrupted, ending, decision, groups, call|'', flags|'', epoch, entries left out,
--   log entries, job fields, anchor|'', memory|'' (also when the epoch is the known one), lost claims|''}
local job, step, nonce, lease_ms, max_losses, max_alone, member, known_epoch, known_length, known_digest = unpack(ARGV)
if not is_of_session() then
  settle_member(member)
  return { 'wrong_session' }
end
local is_model = not string.find(step, '.', 1, true)
local time, status, max_steps, cancel, last_fence, waiting, lane =
  read_clock('status', 'max_steps', 'cancel', 'fence', 'waiting', 'lane')
if lane and string.sub(member, 1, #lane + 1) ~= lane .. '|' then -- the message is older than the job's last replay
  settle_member(member)
  member = string.gsub(member, '^%a+', lane)
end
if not status then
  -- A job that is over has no steps, and its session has no active job or another one.
  if redis.call('EXISTS', STEPS) == 1 or redis.pcall('HGET', SESSION, 'active') == job then return { 'lost', 'job' } end
  settle_member(member)
  return { 'absent' }
end
if has_ended(status) then
  settle_member(member)
  return { 'gone' }
end
if not may_run(status) then return redis.error_reply('UNREADABLE the status of a later release') end

local now = clock()
local active, groups, epoch, flags, anchor =
  unpack(redis.call('HMGET', SESSION, 'active', 'groups', 'epoch', 'flags', 'anchor'))
local row = read_row(step)
if status == 'queued' then
  if active and active ~= job then return { 'not_yet' } end
  if not active then
    -- The record of the session was lost. No job holds the session now, so this job takes it, even if it was not the
    -- first in line.
    for _, priority in ipairs({ 'high', 'normal', 'low', 'replay' }) do redis.pcall('LREM', WAITING, 1, job .. '|' .. priority) end
    restore_session(job, now)
    active, groups, epoch, flags, anchor = unpack(redis.call('HMGET', SESSION, 'active', 'groups', 'epoch', 'flags', 'anchor'))
  end
  if not row and step == '1' then
    row = { state = 'pending', fence = '0', till = 0, attempt = 0, losses = 0, nonce = '', decision = '' }
  end
end
if not row then
  if has_lost_rows(status, redis.call('HGET', JOB, 'open')) then return { 'lost', 'steps' } end
  settle_member(member)
  return { 'gone' }
end

if not active then
  restore_session(job, now)
  active, groups, epoch, flags, anchor = unpack(redis.call('HMGET', SESSION, 'active', 'groups', 'epoch', 'flags', 'anchor'))
elseif active ~= job then
  return { 'lost', 'session' } -- its record was lost, and the session has another job since
end
local again = row.state == 'started' and is_own(row, nonce)
-- A repeated claim had the whole conversation the first time.
local lost_text = not cancel and (not again or redis.call('LLEN', LOG) == 0) and find_lost_text(epoch, is_model and status ~= 'queued')
if lost_text then return { 'lost', lost_text } end

local lost = row.state == 'started' and not again
if lost and row.till > now then return { 'busy', row.till - now } end
-- A worker began this call under a later fence than the row has: the server has forgotten it.
local begun = not is_model and redis.pcall('HGET', partition_of(DUE) .. 'begun', job .. '|' .. step)
local is_forgotten = type(begun) == 'string' and (tonumber(begun) or 0) > tonumber(row.fence)
local interrupted = lost or is_forgotten or mark(row) ~= ''
if row.state == 'dead' then
  settle_member(member)
  return { 'gone' }
end
if row.state ~= 'pending' and row.state ~= 'started' and row.state ~= 'waiting' and row.state ~= 'parked' then
  return redis.error_reply('UNREADABLE the state of a step')
end

-- Others held the job until now, if none of its steps worked. No other step runs during a model turn. A lost worker held the
-- step from the end of its lease on.
local others = is_model and 0 or time.working - (row.state == 'started' and 1 or 0)
if not again and others <= 0 and time.held_since then
  local held_ms = math.max(0, now - math.max(time.held_since, lost and row.till or 0))
  time.held_ms = time.held_ms + held_ms
  if time.deadline_ms then time.deadline_ms = time.deadline_ms + held_ms end
end

local ending = ''
if cancel then ending = 'cancelled'
elseif time.deadline_ms and now > time.deadline_ms then ending = 'timed_out'
elseif time.ends_by_ms and now >= time.ends_by_ms then ending = 'deadline'
-- A child may have worked in this time. So it is checked when the step waits for the child again.
elseif time.held_ms >= time.most_held_ms and row.state ~= 'waiting' then ending = 'max_wait' end

local is_expired = row.state == 'parked' and row.till > 0 and row.till <= now
if ending == '' and (row.state == 'parked' and not is_expired or row.state == 'pending' and row.till > now) then
  -- A steward looked at it because a limit of the job might have been reached.
  redis.call('ZREM', OWED, member)
  redis.call('ZADD', DUE, look_at(now, row.till > 0 and row.till or math.huge, time), member)
  keep()
  return row.state == 'parked' and { 'gone' } or { 'early', row.till - now }
end

local fence, losses, lost_claims, decision = row.fence, row.losses, '', row.decision
if lost then losses = losses + 1 end
if losses > 0 then lost_claims = read_losses(step) end
if lost then lost_claims = lost_claims .. describe_loss(row, now, lease_ms) end
if not again then
  -- The fence comes from the clock. So it is larger than any earlier fence, even one that the server forgot in a crash.
  fence = string.format('%d', math.max(tonumber(last_fence or '0') + 1, now))
end
if is_expired and ending == '' then
  decision = redis.call('HGET', STEPS, step .. ':expiry')
  if decision == '' then ending = 'expired' end
end

groups = tonumber(groups or '0')
-- This worker's Redis user may lack the right to some writes. So the row and the due time are written first. If a later write
-- fails, the step stays in due or owed for another worker.
write_row(step, 'started', fence, now + lease_ms, row.attempt, losses, (interrupted and '!' or '') .. nonce, decision)
redis.call('ZADD', DUE, now + lease_ms, member)
redis.call('ZREM', OWED, member)
if lost then redis.call('HSET', STEPS, step .. ':losses', lost_claims) end

local activated = status == 'queued'
local changed = {} -- fields of JOB
if activated then
  groups = groups + 1
  local timeout_ms, max_worked_ms, input = unpack(redis.call('HMGET', JOB, 'timeout_ms', 'max_worked_ms', 'input'))
  time.deadline_ms = now + (max_worked_ms or timeout_ms)
  append('{"role":"user","group":' .. groups .. ',"text":' .. input .. '}')
  redis.call('HSET', SESSION, 'groups', groups)
  changed = { 'status', 'running', 'started_ms', string.format('%d', now) }
end

if ending ~= '' then -- the step is claimed to end the job
elseif is_model and tonumber(step) > tonumber(max_steps) then ending = 'step_limit'
elseif losses > 0 then
  local unproven, alone = count_unproven(lost_claims, losses)
  if unproven >= tonumber(max_losses) or alone >= tonumber(max_alone) then ending = 'worker_lost' end
end

local function change(field, value) changed[#changed + 1], changed[#changed + 2] = field, value end
if is_model and ending == '' then change('turn', step) end
if not again then
  change('fence', fence)
  change('working', math.max(0, others) + 1)
  change('held_ms', string.format('%d', time.held_ms))
end
if time.deadline_ms then change('deadline_ms', string.format('%d', time.deadline_ms)) end
if #changed > 0 then redis.call('HSET', JOB, unpack(changed)) end
if activated then
  redis.call('EXPIRE', STEPS, KEPT_S, 'NX') -- these keys may be new
  redis.call('EXPIRE', LOG, KEPT_S, 'NX')
  redis.call('HDEL', JOB, 'input')
end
if row.state == 'parked' then unpark(step)
elseif waiting and status ~= 'parked' then redis.call('HDEL', JOB, 'waiting') end
keep()

if epoch or flags then
  for _, part in ipairs({ ':memory', ':archive', ':results', ':originals' }) do redis.call('EXPIRE', SESSION .. part, KEPT_S, 'GT') end
end

count_entries(epoch)
local call, entries, from, memory = '', {}, 0, ''
if is_model then
  if (epoch or '0') == known_epoch and known_length ~= '0' then
    local last = redis.call('LINDEX', LOG, known_length - 1)
    if last and redis.sha1hex(last) == known_digest then from = tonumber(known_length) end
  end
  entries = redis.call('LRANGE', LOG, from, -1)
  if epoch and (epoch ~= known_epoch or from == 0) then memory = redis.call('GET', SESSION .. ':memory') or '' end
else
  call = redis.call('HGET', STEPS, step .. ':call') or ''
end
return { 'claimed', now, fence, row.attempt, losses, interrupted and 1 or 0, ending, decision, groups, call, flags or '',
         epoch or '0', from, entries, redis.call('HGETALL', JOB), anchor or '', memory, lost_claims }
