-- Take or renew the lease of the one worker that redrives letters.
-- KEYS:
--   lease
-- ARGV:
--   worker
--   lease_ms
-- Output: 1 this worker has the lease | 0 another one has it
local lease = KEYS[1]
local worker, lease_ms = unpack(ARGV)
local holder = redis.call('GET', lease)
if holder and holder ~= worker then return 0 end
redis.call('SET', lease, worker, 'PX', lease_ms)
return 1
