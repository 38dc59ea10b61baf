-- Resume a dead letter at the step where it stopped. Its attempts are counted from zero, and its limits start again.
-- Shared: names, prelude, job_clock, endings
-- ARGV:
--   job
--   session
--   lane             priority of its steps from now on; '': the job's own
--   redriven         1: no human asked for it, so it counts as a redrive; 0: a human did, so redrives are counted from zero
--   steps_granted    model turns, from the last one on
--   time_granted_ms  of its own work, from now on; '': session_timeout_s
--   wait_granted_ms  that others may hold it, from now on; '': max_wait_s
-- Output: {'gone'} | {'lost'} | {'not_dead', status} | {'replayed', priority, step...} (steps to publish now)
local job, session, lane, redriven, steps_granted, time_granted_ms, wait_granted_ms = unpack(ARGV)
check_session()
local time, status, turn, max_steps, timeout_ms, parked_steps, discarded, started_ms, finished_ms, max_worked_ms, max_wait_ms,
  max_total_ms, earlier = read_clock('status', 'turn', 'max_steps', 'timeout_ms', 'parked', 'discarded', 'started_ms',
    'finished_ms', 'max_worked_ms', 'max_wait_ms', 'max_total_ms', 'lane')
if not status then return { 'gone' } end
if status ~= 'dead_lettered' or discarded then return { 'not_dead', status } end
if redis.call('HEXISTS', JOB, 'lost') == 1 or #rows() == 0 then return { 'lost' } end
local now = clock()
local ceiling = math.max(tonumber(max_steps), tonumber(turn or '0') + steps_granted)
local granted_ms = tonumber(time_granted_ms) or tonumber(timeout_ms)
local may_wait_ms = math.min(tonumber(wait_granted_ms) or tonumber(max_wait_ms) or MOST_HELD_MS, MOST_HELD_MS)
local worked_ms = 0
if started_ms and time.deadline_ms then
  worked_ms = math.max(0, finished_ms - (time.deadline_ms - (max_worked_ms or timeout_ms)))
end

time.held_since, time.deadline_ms = now, now + granted_ms
time.most_held_ms = time.held_ms + may_wait_ms
time.ends_by_ms = max_total_ms and now + max_total_ms or nil
local own = own_priority()
if lane == '' then lane = own end
local owner = '|' .. session .. '|' .. job .. '|'
local working, out = 0, { 'replayed', lane }
for _, step in ipairs(rows()) do
  local row, member = read_row(step), lane .. owner .. step
  move_member((earlier or own) .. owner .. step, member)
  if row.state == 'started' then working = working + 1 end
  if row.state == 'started' and row.till > now then
    redis.call('ZADD', DUE, row.till, member) -- a claim of the dead job may have removed the entry
  elseif row.state == 'parked' then
    -- The question is asked for its whole time again.
    local till = 0
    if row.till > 0 then
      local why = cjson.decode(redis.call('HGET', STEPS, step .. ':why'))
      till = now + why.until_ms - why.since_ms
      why.since_ms, why.until_ms = now, till
      redis.call('HSET', STEPS, step .. ':why', cjson.encode(why))
    end
    write_row(step, 'parked', row.fence, till, row.attempt, row.losses, '', row.decision)
    redis.call('ZADD', DUE, look_at(now, till > 0 and till or math.huge, time), member)
  else
    local state = row.state == 'started' and 'started' or 'pending'
    -- A rejection that ended the job is not repeated: the replay is a new decision.
    local is_undone = row.state == 'dead' and string.sub(row.decision, 1, 9) == 'rejected:'
    write_row(step, state, row.fence, 0, 0, 0, mark(row), is_undone and '' or row.decision)
    redis.call('HDEL', STEPS, step .. ':losses')
    owe(now, member)
    out[#out + 1] = step
  end
end
local parked = tonumber(parked_steps or '0') > 0
local is_new = not started_ms -- the job never began, because its records could not be read
local changed = { 'lane', lane, 'status', parked and 'parked' or is_new and 'queued' or 'running', 'max_steps', string.format('%d', ceiling),
  'working', working, 'held_since', string.format('%d', now), 'deadline_ms', string.format('%d', time.deadline_ms),
  'max_worked_ms', string.format('%d', worked_ms + granted_ms), 'max_held_ms', string.format('%d', time.most_held_ms) }
if time.ends_by_ms then changed[#changed + 1], changed[#changed + 2] = 'ends_by_ms', string.format('%d', time.ends_by_ms) end
redis.call('HSET', JOB, unpack(changed))
if parked then show_parked() end
redis.call('HDEL', JOB, 'failure', 'finished_ms', 'cancel', 'holder')
redis.call('HINCRBY', JOB, 'granted', steps_granted) -- its descendants may take them, too
if redriven == '1' then
  redis.call('HINCRBY', JOB, 'redrives', 1)
  redis.pcall('HINCRBY', COUNTERS, 'letters.redriven', 1)
else
  redis.call('HDEL', JOB, 'redrives')
end
redis.call('ZREM', DEAD, job)
redis.call('HDEL', LETTERS, job)
set_redrive('')
redis.pcall('HINCRBY', COUNTERS, 'letters.replayed', 1)
keep_new()
return out
