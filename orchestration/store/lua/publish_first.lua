-- Publish the first step of a job that waited for its session. It is in owed already.
-- Shared: first_steps
-- KEYS:
--   queue     LIST  the queue of first steps of its priority
--   backlog   ZSET  member -> virtual start: first steps that wait until the queue is short
--   tenants   HASH  tenant -> virtual start of its next job in the backlog
-- ARGV:
--   places    how many first steps the queue holds before others wait in the backlog
--   member    of the step
--   tenant    of the job, or what else its turns are counted by
--   message   of the step
-- Output: 1 published | 0 it waits in the backlog
local queue, backlog, tenants = unpack(KEYS)
local places, member, tenant, message = unpack(ARGV)
if join_backlog(queue, backlog, tenants, places, member, tenant) then return 0 end
redis.call('LPUSH', queue, message)
return 1
