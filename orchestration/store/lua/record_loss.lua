-- Record the end of a step's separate process, and put the step back until it is due. The step may have had an effect.
-- Shared: prelude, losses
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
local due = clock() + after_ms
redis.call('HSET', STEPS, step .. ':losses', read_losses(step) .. loss .. '\n')
write_row(step, 'pending', row.fence, due, row.attempt, row.losses + 1, '!', row.decision)
settle_member(member)
redis.call('ZADD', DUE, due, member)
return 1
