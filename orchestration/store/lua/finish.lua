-- End a job. A dead letter holds its session, and keeps its rows for a replay. After any other ending the next job starts.
-- Shared: names, prelude, arguments, model_turn, endings
-- ARGV:
--   step
--   fence
--   member_base      `priority|session|job|`
--   job
--   session
--   status           of the ended job
--   output           a JSON string, or ''
--   failure          JSON, or ''
--   trace            JSON
--   letter           JSON of the dead letter, or ''
--   redrive          the letter's entry in the index of letters to redrive, or ''
--   repair_text      the answer to open calls
--   group            of the messages
--   anchor           of the token estimate, or ''
--   usage[](field, amount)      added to the job's fields
--   messages[]       entries of the log
--   drift[]          counters that each count one more
-- Output: {0} lost | {1, next `job|priority` or ''}
local step, fence, member_base, job, session, status, output, failure, trace, letter, redrive, repair_text, group,
  anchor = take(14)
local usage, messages, drift = take_list(2), take_list(), take_list()
local row = held(step, fence)
if not row then return { 0 } end
local now = clock()
-- A cancelled job gives its session back: it must not become a dead letter, which holds the session.
local before, cancel, waiting = unpack(redis.call('HMGET', JOB, 'status', 'cancel', 'waiting'))
if status == 'dead_lettered' and cancel then status = 'cancelled' end
add_messages(messages)
if length(messages) > 0 then redis.call('HSET', SESSION, 'groups', group) end
if anchor ~= '' then redis.call('HSET', SESSION, 'anchor', anchor) end
count_drift(now, drift)
add_usage(usage)
if length(usage) > 0 then redis.call('HSET', JOB, 'committed', step .. '|' .. fence) end -- so that it is not billed twice
add_trace(trace)
redis.call('HSET', JOB, 'status', status, 'finished_ms', string.format('%d', now))
if output ~= '' then redis.call('HSET', JOB, 'output', output) end
if failure ~= '' then redis.call('HSET', JOB, 'failure', failure) end
if waiting then redis.call('HDEL', JOB, 'waiting') end
local function count_ending() -- last, because a missing count does less harm than a missing dead letter
  if status ~= before then redis.pcall('HINCRBY', COUNTERS, 'jobs.' .. status, 1) end -- they are equal if another call has ended the job
end

if status == 'dead_lettered' then
  write_row(step, 'dead', row.fence, 0, row.attempt, row.losses, mark(row), row.decision)
  settle_member(member_base .. step)
  redis.call('ZADD', DEAD, now, job)
  redis.call('HSET', LETTERS, job, letter)
  set_redrive(redrive)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', now - HELD_S * 1000)) do
    redis.call('ZREM', DEAD, gone)
    redis.call('HDEL', LETTERS, gone)
  end
  hold()
  count_ending()
  return { 1, '' }
end
if before == 'dead_lettered' then
  redis.call('ZREM', DEAD, job)
  redis.call('HDEL', LETTERS, job)
  set_redrive('')
end
repair(repair_text, member_base)
local next_job = hand_over(now, session, job)
keep()
count_ending()
return { 1, next_job }
