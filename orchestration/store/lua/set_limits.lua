-- Give a job that was enqueued by name its agent's version and limits, at its first step.
-- Shared: names, prelude
-- ARGV:
--   step
--   fence
--   agent_version
--   max_steps
--   bounds          JSON: the limits that bind its descendants too
--   timeout_ms      session_timeout_s
--   max_wait_ms     max_wait_s, or ''
--   max_total_ms    deadline_s, or ''
-- Output: 1 | 0 lost
local step, fence, agent_version, max_steps, bounds, timeout_ms, max_wait_ms, max_total_ms = unpack(ARGV)
if not is_held(step, fence) then return 0 end
local created_ms, deadline_ms, timeout_before_ms = unpack(redis.call('HMGET', JOB, 'created_ms', 'deadline_ms', 'timeout_ms'))
local changed = { 'version', agent_version, 'max_steps', max_steps, 'bounds', bounds, 'timeout_ms', timeout_ms,
                  'deadline_ms', string.format('%d', deadline_ms - timeout_before_ms + timeout_ms) }
local function change(field, value) changed[#changed + 1], changed[#changed + 2] = field, value end
if max_wait_ms ~= '' then change('max_wait_ms', max_wait_ms) else redis.call('HDEL', JOB, 'max_wait_ms') end
if max_total_ms ~= '' then
  change('max_total_ms', max_total_ms)
  change('ends_by_ms', string.format('%d', created_ms + max_total_ms))
end
redis.call('HSET', JOB, unpack(changed))
return 1
