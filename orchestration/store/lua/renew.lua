-- Prolong the lease of a step that is still ours.
-- ARGV: 1 step  2 fence  3 lease_ms  4 member
-- Output: 0 lost | 1 ours | 2 ours, and the job was cancelled
local row = held(ARGV[1], ARGV[2])
if not row or row.state ~= 'started' then return 0 end
local till = clock() + ARGV[3]
write_row(ARGV[1], 'started', row.fence, till, row.attempt, row.losses, row.nonce, row.verdict)
redis.call('ZADD', DUE, till, ARGV[4])
redis.call('ZREM', OWED, ARGV[4]) -- a steward may have found it late
return redis.call('HEXISTS', J, 'cancel') == 1 and 2 or 1
