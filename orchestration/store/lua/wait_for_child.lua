-- Set a tool step aside until its child job ends. The child's work counts as the job's own, its waits do not.
-- Shared: names, prelude, job_clock
-- ARGV:
--   step
--   fence
--   member       of the step, in due and owed
--   poll_ms      look at the child after this time
--   worked_ms    how long the child has worked so far
--   waiting      JSON of what the job waits for; its `since_ms` is added
-- Output: 'waits' | 'lost' | 'max_wait': nothing changed, because others have held the job for too long
local step, fence, member, poll_ms, worked_ms, waiting = unpack(ARGV)
local row = held(step, fence)
if not row then return 'lost' end
local now = clock()
local time, status = read_clock('status')
local child = charge_child(time, step, worked_ms)
if time.held_ms >= time.most_held_ms and status ~= 'dead_lettered' then return 'max_wait' end
stop_work(time, row.state == 'started' and 1 or 0, now)
local holder, held_from = hold_by(time, step, 'child', 'null', now)
local look = now + poll_ms
write_row(step, 'waiting', row.fence, look, row.attempt, 0, '', row.decision)
settle_member(member)
redis.call('ZADD', DUE, look_at(now, look, time), member)
local changed = { 'working', time.working, 'held_since', string.format('%d', time.held_since), 'holder', holder, 'child', child,
                  'held_ms', string.format('%d', time.held_ms), 'deadline_ms', string.format('%d', time.deadline_ms) }
if status == 'running' then
  changed[#changed + 1] = 'waiting'
  changed[#changed + 1] = string.sub(waiting, 1, -2) .. ',"since_ms":' .. string.format('%d', held_from) .. '}'
end
redis.call('HSET', JOB, unpack(changed))
keep_new()
return 'waits'
