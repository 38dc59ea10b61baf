-- Extend the lease of a step that the caller has claimed.
-- Shared: names, prelude
-- ARGV:
--   step
--   fence
--   lease_ms
--   member      of the step, in due and owed
-- Output: 'held' | 'cancelled': held, but the job was cancelled | 'lost'
local step, fence, lease_ms, member = unpack(ARGV)
local row = held(step, fence)
if not row or row.state ~= 'started' then return 'lost' end
local till = clock() + lease_ms
write_row(step, 'started', row.fence, till, row.attempt, row.losses, row.nonce, row.decision)
redis.call('ZADD', DUE, till, member)
redis.call('ZREM', OWED, member) -- a steward may have owed it because its lease had ended
return redis.call('HEXISTS', JOB, 'cancel') == 1 and 'cancelled' or 'held'
