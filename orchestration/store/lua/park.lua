-- Put a step aside until a human decides, or until the question expires.
-- Shared: names, prelude, job_clock, endings
-- ARGV:
--   step
--   fence
--   member       of the step, in due and owed
--   trace        JSON
--   waiting      JSON of what the job waits for; its `since_ms` and `until_ms` are added
--   expires_ms   from now, or '': the question does not expire
--   expiry       the decision at its expiry, as the row of a step holds it; '': the job ends
-- Output: 1 | 0 lost
local step, fence, member, trace, waiting, expires_ms, expiry = unpack(ARGV)
local row = held(step, fence)
if not row then return 0 end
local now = clock()
local time, status, parked = read_clock('status', 'parked')
stop_work(time, row.state == 'started' and 1 or 0, now)
local till = expires_ms ~= '' and now + expires_ms or 0
waiting = string.sub(waiting, 1, -2) .. ',"since_ms":' .. string.format('%d', now)
  .. (till > 0 and ',"until_ms":' .. string.format('%d', till) .. '}' or '}')
write_row(step, 'parked', row.fence, till, row.attempt, row.losses, '', row.decision)
redis.call('HSET', STEPS, step .. ':why', waiting, step .. ':expiry', expiry)
settle_member(member)
redis.call('ZADD', DUE, look_at(now, till > 0 and till or math.huge, time), member)
local changed = { 'working', time.working, 'held_since', string.format('%d', time.held_since), 'parked', tonumber(parked or '0') + 1,
                  'holder', (hold_by(time, step, 'human', 'null', now)) }
-- Not if another call has made the job a dead letter: then the replay writes what the job waits for.
if status ~= 'dead_lettered' then
  for _, text in ipairs({ 'status', 'parked', 'waiting', waiting }) do changed[#changed + 1] = text end
end
redis.call('HSET', JOB, unpack(changed))
add_trace(trace)
keep_new()
hold()
return 1
