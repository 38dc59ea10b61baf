-- Record a job. Owe its first step, or let the job wait if the session has an active one.
-- Shared: prelude
-- ARGV:
--   job
--   session
--   priority
--   spec            JSON, fixed for the job's life
--   input           a JSON string
--   max_steps
--   timeout_ms
--   on_busy         enqueue | reject | interrupt
--   message         of the first step, for the model queue, or ''
-- Output: {'exists'} | {'busy', active job} | {'started'} | {'queued', active job}
local job, session, priority, spec, input, max_steps, timeout_ms, on_busy, message = unpack(ARGV)
if redis.call('EXISTS', JOB) == 1 then return { 'exists' } end
local active = redis.call('HGET', SESSION, 'active')
-- An active job whose keys have expired no longer holds the session. (Its key is not declared, but is in the same slot.)
if active and redis.call('EXISTS', string.sub(JOB, 1, #JOB - #job) .. active) == 0 then active = nil end
if active and on_busy == 'reject' then return { 'busy', active } end

-- Set the time to live of the keys that exist so far. The session may be new.
local function keep_new_job()
  redis.call('EXPIRE', JOB, KEPT_S)
  redis.call('EXPIRE', SESSION, KEPT_S, 'NX')
  redis.call('EXPIRE', SESSION, KEPT_S, 'GT')
  redis.call('EXPIRE', LOG, KEPT_S, 'GT')
end

local now = clock()
redis.call('HSET', JOB, 'status', 'queued', 'spec', spec, 'input', input, 'max_steps', max_steps, 'timeout_ms', timeout_ms,
  'created_ms', string.format('%d', now))
redis.call('ZADD', JOBS, now, job)
redis.call('ZREMRANGEBYSCORE', JOBS, '-inf', now - HELD_S * 1000)
redis.call('EXPIRE', JOBS, HELD_S)
redis.call('HINCRBY', COUNTERS, 'jobs.enqueued', 1)
if active then
  redis.call(on_busy == 'interrupt' and 'LPUSH' or 'RPUSH', WAITING, job .. '|' .. priority)
  redis.call('EXPIRE', WAITING, KEPT_S, 'NX')
  redis.call('EXPIRE', WAITING, KEPT_S, 'GT')
  keep_new_job()
  return { 'queued', active }
end
redis.call('HSET', SESSION, 'active', job)
owe_new(now, priority .. '|' .. session .. '|' .. job .. '|1', MODEL_QUEUE, message)
keep_new_job()
return { 'started' }
