-- Append a model turn and owe what follows: its tool calls, or, when none of them runs, the next turn.
-- ARGV: 1 step  2 fence  3 member  4 group  5 lease_ms  6..11 usage  12 tool calls  13 invalid calls  14 children  15 trace
--       16 n messages, then n messages;  then m calls, then m x (step, started 0|1, call JSON, member, message|'')
--       then: next step, its member, its message|'', anchor|'', n counters of drift, then n names
-- Output: 0 lost | 1 committed | 2 committed, but the job was cancelled meanwhile: run nothing of it
--         3, 4 the same: it had been committed already
local step, fence, group = ARGV[1], ARGV[2], ARGV[4]
if not held(step, fence) then
  -- Sent again, because its reply was lost? Then it is done, and its inline calls are ours to run.
  if redis.call('HGET', J, 'committed') ~= step .. '|' .. fence then return 0 end
  return redis.call('HEXISTS', J, 'cancel') == 1 and 4 or 3
end
local now = clock()
local at = 16
local messages = tonumber(ARGV[at])
for i = 1, messages do redis.call('RPUSH', L, ARGV[at + i]) end
at = at + messages + 1
redis.call('HSET', S, 'groups', group)
add_usage(6)
if ARGV[12] ~= '0' then redis.call('HINCRBY', J, 'tool_calls', ARGV[12]) end
if ARGV[13] ~= '0' then
  redis.call('HINCRBY', J, 'invalid_calls', ARGV[13])
  redis.call('HINCRBY', COUNTERS, 'calls.invalid', ARGV[13])
end
if ARGV[14] ~= '0' then redis.call('HINCRBY', J, 'children', ARGV[14]) end
redis.call('RPUSH', T, ARGV[15])
redis.call('HDEL', R, step)
settle_member(ARGV[3])
redis.call('HINCRBY', COUNTERS, 'steps.model', 1)

local calls = tonumber(ARGV[at])
for i = 0, calls - 1 do
  local b = at + 1 + i * 5
  local call_step, started, member = ARGV[b], ARGV[b + 1] == '1', ARGV[b + 3]
  redis.call('HSET', R, call_step .. ':call', ARGV[b + 2])
  if started then
    write_row(call_step, 'started', fence, now + ARGV[5], 0, 0, '', '')
    redis.call('ZADD', DUE, now + ARGV[5], member)
  else
    write_row(call_step, 'pending', '0', 0, 0, 0, '', '')
    owe(now, member, 14, ARGV[b + 4])
  end
end
at = at + 1 + calls * 5
if ARGV[at + 3] ~= '' then redis.call('HSET', S, 'anchor', ARGV[at + 3]) end
count_drift(now, at + 4)
redis.call('HSET', J, 'open', calls, 'committed', step .. '|' .. fence)
if calls == 0 then
  write_row(ARGV[at], 'pending', '0', 0, 0, 0, '', '')
  owe(now, ARGV[at + 1], 13, ARGV[at + 2])
end
-- The claim prolonged the life of all keys, but this one was emptied (and so deleted) and this one may be new.
redis.call('EXPIRE', R, KEPT_S, 'NX')
redis.call('EXPIRE', T, KEPT_S, 'NX')
return redis.call('HEXISTS', J, 'cancel') == 1 and 2 or 1
