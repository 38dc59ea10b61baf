-- Shared by the scripts that publish the first step of a job.

local LOOK_MS = 60000 -- how long a steward does not look at a step of the backlog: it is owed, but no message is lost

-- Let a first step wait in the backlog if its queue is long, or if other steps wait there. Returns whether it waits.
-- Tenants take turns. The backlog is in the order of virtual starts, and each job of a tenant starts one later than the job
-- before. A tenant that comes new starts beside the first step that waits.
local function join_backlog(queue, backlog, tenants, places, member, tenant)
  local first = redis.call('ZRANGE', backlog, 0, 0, 'WITHSCORES')
  if not first[2] and redis.call('LLEN', queue) < tonumber(places) then return false end
  local start = math.max(tonumber(first[2] or 0), tonumber(redis.call('HGET', tenants, tenant) or 0))
  redis.call('HSET', tenants, tenant, start + 1)
  redis.call('ZADD', backlog, 'NX', start, member)
  redis.call('EXPIRE', backlog, KEPT_S)
  redis.call('EXPIRE', tenants, KEPT_S)
  return true
end
