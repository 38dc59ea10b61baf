-- Record a job. Mark its first step as owed, or let the job wait if the session has an active one.
-- Shared: names, prelude, first_steps
-- KEYS 15 and 16 are the backlog and its tenants, if the first step may have to wait there: see first_steps.lua.
-- ARGV:
--   job
--   session
--   priority
--   spec            JSON, fixed for the job's life
--   input           a JSON string
--   digest          of the input, by which a repetition with another input is known
--   max_steps
--   timeout_ms      session_timeout_s
--   max_wait_ms     max_wait_s, or ''
--   max_total_ms    deadline_s, or ''
--   on_busy         enqueue | reject | interrupt
--   message         of the first step, for the model queue, or ''
--   tenant          of the job, or ''
--   places          how many first steps the queue holds before others wait in the backlog
-- Output: {'exists'} | {'busy', active job} | {'started'} | {'queued', active job}
local job, session, priority, spec, input, digest, max_steps, timeout_ms, max_wait_ms, max_total_ms, on_busy,
  message, tenant, places = unpack(ARGV)
if redis.call('EXISTS', JOB) == 1 then return { 'exists' } end
local active = redis.call('HGET', SESSION, 'active')
-- An active job whose keys have expired no longer holds the session. (Its key is not declared, but is in the same slot.)
if active and redis.call('EXISTS', job_key(JOB, active)) == 0 then active = nil end
if active and on_busy == 'reject' then return { 'busy', active } end

-- Set the time to live of the keys that exist so far. The session may be new.
local function keep_new_job()
  redis.call('EXPIRE', JOB, KEPT_S)
  redis.call('EXPIRE', SESSION, KEPT_S, 'NX')
  redis.call('EXPIRE', SESSION, KEPT_S, 'GT')
  redis.call('EXPIRE', LOG, KEPT_S, 'GT')
  for _, part in ipairs({ ':memory', ':archive', ':results', ':originals' }) do redis.call('EXPIRE', SESSION .. part, KEPT_S, 'GT') end
end

local now = clock()
local limits = {}
local function limit(field, value) limits[#limits + 1], limits[#limits + 2] = field, value end
if max_wait_ms ~= '' then limit('max_wait_ms', max_wait_ms) end
if max_total_ms ~= '' then
  limit('max_total_ms', max_total_ms)
  limit('ends_by_ms', string.format('%d', now + max_total_ms))
end
if not active then limit('held_since', string.format('%d', now)) end -- else it waits for its session, which is not counted
redis.call('HSET', JOB, 'status', 'queued', 'session', session, 'spec', spec, 'input', input, 'digest', digest, 'max_steps', max_steps, 'timeout_ms', timeout_ms,
  'created_ms', string.format('%d', now), unpack(limits))
-- The list of jobs and the counters may be damaged. A job does not need them, so an error here is ignored.
redis.pcall('ZADD', JOBS, now, job)
redis.pcall('ZREMRANGEBYSCORE', JOBS, '-inf', now - HELD_S * 1000)
redis.call('EXPIRE', JOBS, HELD_S)
redis.pcall('HINCRBY', COUNTERS, 'jobs.enqueued', 1)
if active then
  redis.call(on_busy == 'interrupt' and 'LPUSH' or 'RPUSH', WAITING, job .. '|' .. priority)
  redis.call('EXPIRE', WAITING, KEPT_S, 'NX')
  redis.call('EXPIRE', WAITING, KEPT_S, 'GT')
  keep_new_job()
  return { 'queued', active }
end
redis.call('HSET', SESSION, 'active', job)
local member = priority .. '|' .. session .. '|' .. job .. '|1'
if KEYS[15] and join_backlog(MODEL_QUEUE, KEYS[15], KEYS[16], places, member, tenant) then
  redis.call('ZADD', OWED, now + LOOK_MS, member)
else
  owe_new(now, member, MODEL_QUEUE, message)
end
keep_new_job()
return { 'started' }
