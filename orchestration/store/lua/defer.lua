-- Put a step back until it is due. Then a steward publishes it. A failed attempt counts. A refusal by the gate does not.
-- Shared: names, prelude, job_clock
-- ARGV:
--   step
--   fence
--   member       of the step, in due and owed
--   after_ms
--   counts       1: this was a failed attempt; 0: it was not
--   wakes        1: the coordinator may wake the step before its time; 0: it may not
--   trace        JSON
--   reason       a JSON string
--   owner        who holds the step: a WaitOwner
--   downstream   a JSON string of the downstream that holds the step, or null
-- Output: 1 | 0 lost
local step, fence, member, after_ms, counts, wakes, trace, reason, owner, downstream = unpack(ARGV)
local row = held(step, fence)
if not row then return 0 end
local now = clock()
local time, status = read_clock('status')
local due, is_own = now + after_ms, owner == 'job'
-- If others hold the step, they took the time since its claim, too: a call that hangs in an outage is not work. A fence is the
-- time of its claim.
local since = is_own and now or math.min(now, math.max(time.held_since or 0, tonumber(fence)))
stop_work(time, row.state == 'started' and 1 or 0, is_own and due or since)
local holder, held_from = hold_by(time, step, owner, downstream, since)
local attempt = row.attempt + counts
local losses = counts == '1' and 0 or row.losses -- keep the losses after a refusal: the step may kill workers
write_row(step, 'pending', row.fence, wakes == '1' and 0 or due, attempt, losses, mark(row), row.decision)
settle_member(member)
redis.call('ZADD', DUE, look_at(now, due, time), member)
add_trace(trace)
local changed = { 'working', time.working, 'held_since', string.format('%d', time.held_since), 'holder', holder }
if status == 'running' then
  changed[#changed + 1] = 'waiting'
  changed[#changed + 1] = '{"step":"' .. step .. '","reason":' .. reason .. ',"until_ms":' .. string.format('%d', due)
    .. ',"attempt":' .. attempt .. ',"owner":"' .. owner .. '","since_ms":' .. string.format('%d', held_from)
    .. ',"downstream":' .. downstream .. '}'
end
redis.call('HSET', JOB, unpack(changed))
if counts == '1' then
  redis.call('HINCRBY', JOB, 'retries', 1)
  redis.pcall('HINCRBY', COUNTERS, 'steps.retried', 1)
end
return 1
