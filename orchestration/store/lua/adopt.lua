-- Record a child that a producer enqueues, unless the job is over. A repeated request for the same child changes nothing.
-- Shared: names, prelude
-- ARGV:
--   child       the child's id
--   is_added    1: record it; 0: it was not enqueued, so forget it
-- Output: 'gone' | 'adopted' | 'known': it was recorded before | how the job ended: completed, cancelled, timed_out, discarded
local child, is_added = unpack(ARGV)
check_session()
local status, cancel, discarded, adopted = unpack(redis.call('HMGET', JOB, 'status', 'cancel', 'discarded', 'adopted'))
if not status then return 'gone' end
local ids, is_known = {}, false
for id in string.gmatch(adopted or '', '%S+') do
  if id == child then is_known = true else ids[#ids + 1] = id end
end
if is_added == '0' then
  redis.call('HSET', JOB, 'adopted', table.concat(ids, ' '))
  return 'known'
end
if is_known then return 'known' end
if discarded then return 'discarded' end
if cancel then return 'cancelled' end
if has_ended(status) and status ~= 'dead_lettered' then return status end
ids[#ids + 1] = child
redis.call('HSET', JOB, 'adopted', table.concat(ids, ' '))
return 'adopted'
