-- A job that was enqueued by name learns its agent's version and limits at its first step.
-- ARGV: 1 step  2 fence  3 agent version  4 max_steps  5 timeout_ms
-- Output: 1 | 0 lost
if not held(ARGV[1], ARGV[2]) then return 0 end
local started = redis.call('HGET', J, 'started_ms')
redis.call('HSET', J, 'version', ARGV[3], 'max_steps', ARGV[4], 'timeout_ms', ARGV[5],
  'deadline_ms', string.format('%d', started + ARGV[5]))
return 1
