-- Return the steps of one partition that a steward must publish now. Each goes to one steward only, because it moves to owed
-- with a new time.
-- KEYS:
--   due
--   owed
--   then with hand-off the backlogs of first steps: high, normal, low, replay
-- ARGV:
--   limit              entries at most, of due and of owed
--   patience_ms        how long a step may stay unclaimed when its queue is empty: then its message is lost
--   stale_ms           how long a step may stay unclaimed when its queue is not empty: then it probably waits there
--   model_queue_idle   1: the queue is empty; 0: it is not
--   tools_queue_idle   1: the queue is empty; 0: it is not
-- Output: {ms until the next entry is due, or -1, how many of the members were due, member...}; the other members were owed
local due, owed = unpack(KEYS)
local backlogs = { high = KEYS[3], normal = KEYS[4], low = KEYS[5], replay = KEYS[6] }
local LOOK_MS = 60000 -- how long not to look at a step of the backlog again
local limit, patience_ms, stale_ms, model_queue_idle, tools_queue_idle = unpack(ARGV)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = { -1, 0 }
for _, member in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', due, member)
  redis.call('ZADD', owed, now, member)
  out[#out + 1] = member
end
out[2] = #out - 2

-- Does the step wait in the backlog? Then it has no message that could be lost.
local function is_in_backlog(member)
  local priority = string.match(member, '^(%a+)|.*|1$')
  return priority and backlogs[priority] and redis.call('ZSCORE', backlogs[priority], member)
end

local old = redis.call('ZRANGEBYSCORE', owed, '-inf', now - patience_ms, 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #old, 2 do
  local is_tool = string.match(old[i], '|%d+%.%d+$')
  local idle = (is_tool and tools_queue_idle or model_queue_idle) == '1'
  if is_in_backlog(old[i]) then
    redis.call('ZADD', owed, now + LOOK_MS, old[i])
  elseif idle or tonumber(old[i + 1]) <= now - stale_ms then
    redis.call('ZADD', owed, now, old[i])
    out[#out + 1] = old[i]
  end
end
local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if next_due[2] then out[1] = math.max(0, tonumber(next_due[2]) - now) end
return out
