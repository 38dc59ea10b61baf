-- Record the end of a step's separate process, and put the step back until it is due. The step may have had an effect.
-- Shared: names, prelude, job_clock, losses
-- ARGV:
--   step
--   fence
--   member      of the step, in due and owed
--   after_ms
--   loss        JSON
-- Output: 1 | 0 lost: the step has ended, or another worker has claimed it
local step, fence, member, after_ms, loss = unpack(ARGV)
local row = held(step, fence)
if not row or row.state ~= 'started' then return 0 end
local now = clock()
local due = now + after_ms
local time = read_clock()
stop_work(time, 1, due) -- the wait is the job's own backoff
redis.call('HSET', STEPS, step .. ':losses', read_losses(step) .. loss .. '\n')
write_row(step, 'pending', row.fence, due, row.attempt, row.losses + 1, '!', row.decision)
settle_member(member)
redis.call('ZADD', DUE, look_at(now, due, time), member)
redis.call('HSET', JOB, 'working', time.working, 'held_since', string.format('%d', time.held_since))
return 1
