-- Give a job that was enqueued by name its agent's version and limits, at its first step.
-- Shared: prelude
-- ARGV:
--   step
--   fence
--   agent_version
--   max_steps
--   timeout_ms
-- Output: 1 | 0 lost
local step, fence, agent_version, max_steps, timeout_ms = unpack(ARGV)
if not is_held(step, fence) then return 0 end
local started = redis.call('HGET', JOB, 'started_ms')
redis.call('HSET', JOB, 'version', agent_version, 'max_steps', max_steps, 'timeout_ms', timeout_ms,
  'deadline_ms', string.format('%d', started + timeout_ms))
return 1
