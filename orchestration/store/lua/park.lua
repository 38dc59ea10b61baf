-- Put a step aside: until a human decides (state parked), or until its child job ends (state waiting).
-- Shared: prelude, endings
-- ARGV:
--   step
--   fence
--   member       of the step, in due and owed
--   state        parked | waiting
--   poll_ms      waiting: look at the child after this time
--   trace        JSON, or ''
--   waiting      parked: JSON of what the job waits for
-- Output: 1 | 0 lost
local step, fence, member, state, poll_ms, trace, waiting = unpack(ARGV)
local row = held(step, fence)
if not row then return 0 end
settle_member(member)
if state == 'parked' then
  write_row(step, 'parked', row.fence, 0, row.attempt, row.losses, '', row.decision)
  redis.call('HSET', STEPS, step .. ':why', waiting)
  -- Not if another call has made the job a dead letter: then the replay writes what the job waits for.
  if redis.call('HGET', JOB, 'status') ~= 'dead_lettered' then
    redis.call('HSET', JOB, 'status', 'parked', 'waiting', waiting)
  end
  if redis.call('HINCRBY', JOB, 'parked', 1) == 1 then redis.call('HSET', JOB, 'parked_ms', string.format('%d', clock())) end
else
  local look = clock() + poll_ms
  write_row(step, 'waiting', row.fence, look, row.attempt, 0, '', row.decision)
  redis.call('ZADD', DUE, look, member)
end
if trace ~= '' then redis.call('RPUSH', TRACE, trace) end
keep_new()
if state == 'parked' then hold() end
return 1
