-- Append results of tool calls; the last one of a turn owes the next model turn.
-- A result whose row is no longer held is left out: its step is over, or someone else runs it.
-- ARGV: 1 fence  2 n results, then n x (step, member, message JSON, trace JSON);  then: next step, its member, its message|''
-- Output: {applied, 1 if the next turn is owed}
local fence, n = ARGV[1], tonumber(ARGV[2])
local now, applied = clock(), 0
for i = 0, n - 1 do
  local b = 3 + i * 4
  local step = ARGV[b]
  if held(step, fence) then
    redis.call('RPUSH', L, ARGV[b + 2])
    redis.call('RPUSH', T, ARGV[b + 3])
    redis.call('HDEL', R, step, step .. ':call')
    settle_member(ARGV[b + 1])
    applied = applied + 1
  end
end
if applied == 0 then return { 0, 0 } end
redis.call('HINCRBY', COUNTERS, 'steps.tool', applied)
if redis.call('HINCRBY', J, 'open', -applied) > 0 then return { applied, 0 } end
local at = 3 + n * 4
write_row(ARGV[at], 'pending', '0', 0, 0, 0, '', '')
redis.call('EXPIRE', R, KEPT_S, 'NX') -- it was emptied, and so deleted
owe(now, ARGV[at + 1], 13, ARGV[at + 2])
return { applied, 1 }
