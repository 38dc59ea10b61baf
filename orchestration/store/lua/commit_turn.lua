-- Append a model turn. Mark its tool calls as owed, or the next turn if no call runs.
-- Shared: names, prelude, arguments, model_turn
-- ARGV:
--   step
--   fence
--   member            of the step, in due and owed
--   group             of the turn's messages
--   lease_ms          of calls that are started
--   tool_calls        added to the job's count
--   invalid_calls     added to the job's and the fleet's count
--   children          added to the job's count
--   is_alone          1: the calls were not reserved, because the job had no parent or children at its claim; 0: they were
--   trace             JSON
--   anchor            of the token estimate, or ''
--   next_step         the next model turn
--   next_member       of it, in due and owed
--   next_message      of it, for the model queue, or ''
--   usage[](field, amount)      added to the job's fields
--   messages[]        entries of the log
--   calls[](step, started, call, member, message)    started: 0|1; call: JSON; message: for the tools queue, or ''
--   drift[]           counters that each count one more
-- Output: {'lost'} | {'committed' or 'cancelled', 1 applied now, 0 it had been applied before}
--   | {'adopted'}: nothing changed, because a producer gave the job a child meanwhile. Reserve the calls, then commit
--   'cancelled' is committed too, but the job was cancelled: run nothing of it
local step, fence, member, group, lease_ms, tool_calls, invalid_calls, children, is_alone, trace, anchor,
  next_step, next_member, next_message = take(14)
local usage, messages, calls, drift = take_list(2), take_list(), take_list(5), take_list()

local cancel, adopted = unpack(redis.call('HMGET', JOB, 'cancel', 'adopted'))
local function committed(applied)
  return { cancel and 'cancelled' or 'committed', applied }
end

local row = held(step, fence)
if not row then
  -- Was this commit sent before, and its reply lost? Then it is committed, and the sender must run its inline calls.
  if redis.call('HGET', JOB, 'committed') ~= step .. '|' .. fence then return { 'lost' } end
  return committed(0)
end
if is_alone == '1' and adopted and adopted ~= '' then return { 'adopted' } end
local now = clock()
add_messages(messages)
if anchor == '' then
  redis.call('HSET', SESSION, 'groups', group)
else
  redis.call('HSET', SESSION, 'groups', group, 'anchor', anchor)
end
add_usage(usage)
if tool_calls ~= '0' then redis.call('HINCRBY', JOB, 'tool_calls', tool_calls) end
if invalid_calls ~= '0' then
  redis.call('HINCRBY', JOB, 'invalid_calls', invalid_calls)
  redis.pcall('HINCRBY', COUNTERS, 'calls.invalid', invalid_calls)
end
if children ~= '0' then redis.call('HINCRBY', JOB, 'children', children) end
add_trace(trace)
settle_member(member)
redis.pcall('HINCRBY', COUNTERS, 'steps.model', 1)
count_drift(now, drift)
local working = 0

for call_step, started, call, call_member, message in rows_of(calls, 5) do
  if started == '1' then
    working = working + 1
    local nonce = string.match(row.nonce, '^!?(.-)%+?$') -- it names the worker
    redis.call('HSET', STEPS, call_step, row_text('started', fence, now + lease_ms, 0, 0, nonce, ''), call_step .. ':call', call)
    redis.call('ZADD', DUE, now + lease_ms, call_member)
  else
    local row = row_text('pending', '0', 0, 0, 0, '', '')
    redis.call('HSET', STEPS, call_step, row, call_step .. ':call', call)
    owe_new(now, call_member, TOOLS_QUEUE, message)
  end
end
redis.call('HSET', JOB, 'open', length(calls), 'committed', step .. '|' .. fence, 'working', working,
  'held_since', string.format('%d', now))
if length(calls) == 0 then
  write_row(next_step, 'pending', '0', 0, 0, 0, '', '')
  owe_new(now, next_member, MODEL_QUEUE, next_message)
end
redis.call('HDEL', STEPS, step, step .. ':losses') -- last: a hash without fields is deleted, with its time to live
return committed(1)
