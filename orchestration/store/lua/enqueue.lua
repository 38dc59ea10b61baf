-- Record a job and owe its first step, or line it up behind the session's active one.
-- ARGV: 1 job  2 session  3 priority  4 spec (JSON, fixed for life)  5 input (a JSON string)  6 max_steps  7 timeout_ms
--       8 policy (enqueue|reject|interrupt)  9 message for the model queue, or ''
-- Output: {'exists'} | {'busy', active job} | {'started'} | {'queued', active job}
local job, session, priority = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', J) == 1 then return { 'exists' } end
local active = redis.call('HGET', S, 'active')
-- A job that was held until its keys expired holds nothing any more. (Its key is in this slot, though not declared.)
if active and redis.call('EXISTS', string.sub(J, 1, #J - #job) .. active) == 0 then active = nil end
if active and ARGV[8] == 'reject' then return { 'busy', active } end

local now = clock()
redis.call('HSET', J, 'status', 'queued', 'spec', ARGV[4], 'input', ARGV[5], 'max_steps', ARGV[6], 'timeout_ms', ARGV[7],
  'created_ms', string.format('%d', now))
redis.call('ZADD', JOBS, now, job)
redis.call('ZREMRANGEBYSCORE', JOBS, '-inf', now - HELD_S * 1000)
redis.call('EXPIRE', JOBS, HELD_S)
redis.call('HINCRBY', COUNTERS, 'jobs.enqueued', 1)
if active then
  redis.call(ARGV[8] == 'interrupt' and 'LPUSH' or 'RPUSH', WAITING, job .. '|' .. priority)
  redis.call('EXPIRE', WAITING, KEPT_S, 'NX')
  redis.call('EXPIRE', WAITING, KEPT_S, 'GT')
  keep_new()
  return { 'queued', active }
end
redis.call('HSET', S, 'active', job)
owe(now, priority .. '|' .. session .. '|' .. job .. '|1', 13, ARGV[9])
keep_new()
return { 'started' }
