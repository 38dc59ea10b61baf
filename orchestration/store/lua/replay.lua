-- Resume a dead letter at the step where it stopped. Its attempts are counted from zero, and its limits start again.
-- Shared: prelude, endings
-- ARGV:
--   job
--   session
--   lane             priority of its steps from now on; '': the job's own
--   redriven         1: no human asked for it, so it counts as a redrive; 0: a human did, so redrives are counted from zero
--   steps_granted    model turns, from the last one on
-- Output: {'gone'} | {'not_dead', status} | {'replayed', priority, step...} (steps to publish now)
local job, session, lane, redriven, steps_granted = unpack(ARGV)
local status, turn, max_steps, timeout_ms, parked_steps, discarded, started_ms =
  unpack(redis.call('HMGET', JOB, 'status', 'turn', 'max_steps', 'timeout_ms', 'parked', 'discarded', 'started_ms'))
if not status then return { 'gone' } end
if status ~= 'dead_lettered' or discarded then return { 'not_dead', status } end
local now = clock()
local ceiling = math.max(tonumber(max_steps), tonumber(turn or '0') + steps_granted)
local own, earlier = own_priority(), redis.call('HGET', JOB, 'lane')
if lane == '' then lane = own end
local owner = '|' .. session .. '|' .. job .. '|'
local out = { 'replayed', lane }
for _, step in ipairs(rows()) do
  local row, member = read_row(step), lane .. owner .. step
  move_member((earlier or own) .. owner .. step, member)
  if row.state == 'started' and row.till > now then
    redis.call('ZADD', DUE, row.till, member) -- a claim of the dead job may have removed the entry
  elseif row.state ~= 'parked' then
    local state = row.state == 'started' and 'started' or 'pending'
    write_row(step, state, row.fence, 0, 0, 0, mark(row), row.decision)
    redis.call('HDEL', STEPS, step .. ':losses')
    owe(now, member)
    out[#out + 1] = step
  end
end
local parked = tonumber(parked_steps or '0') > 0
local is_new = not started_ms -- the job never began, because its records could not be read
redis.call('HSET', JOB, 'status', parked and 'parked' or is_new and 'queued' or 'running', 'max_steps', string.format('%d', ceiling),
  'deadline_ms', string.format('%d', now + timeout_ms))
if parked then show_parked() end
redis.call('HDEL', JOB, 'failure', 'finished_ms', 'cancel')
redis.call('HSET', JOB, 'lane', lane)
if redriven == '1' then
  redis.call('HINCRBY', JOB, 'redrives', 1)
  redis.call('HINCRBY', COUNTERS, 'letters.redriven', 1)
else
  redis.call('HDEL', JOB, 'redrives')
end
redis.call('ZREM', DEAD, job)
redis.call('HDEL', LETTERS, job)
set_redrive('')
redis.call('HINCRBY', COUNTERS, 'letters.replayed', 1)
keep_new()
return out
