-- Add to a job what a worker has paid for, if no commit carries it: the step was put aside, it was lost, or the job ended.
-- Shared: names, prelude, arguments, model_turn
-- ARGV:
--   paid_by         who paid: `step|fence` of an attempt, or a compaction. Each pays once
--   invalid_calls   added to the job's and the fleet's count
--   usage[](field, amount)      added to the job's fields
--   drift[]         counters that each count one more
-- Output: 1 added | 0 it was added before, or there is no such job
local paid_by, invalid_calls = take(2)
local usage, drift = take_list(2), take_list()
check_session()
local committed, billed = unpack(redis.call('HMGET', JOB, 'committed', 'billed'))
if redis.call('EXISTS', JOB) == 0 or committed == paid_by or billed == paid_by then return 0 end
add_usage(usage)
if invalid_calls ~= '0' then
  redis.call('HINCRBY', JOB, 'invalid_calls', invalid_calls)
  redis.call('HINCRBY', COUNTERS, 'calls.invalid', invalid_calls)
end
count_drift(clock(), drift)
redis.call('HSET', JOB, 'billed', paid_by)
return 1
