-- Record a human's decision on a parked step: the step is owed again, with the decision in its row. The first decision wins.
-- Shared: prelude, endings
-- ARGV:
--   step
--   member       of the step, in due and owed
--   verdict      approve | reject
--   reason       a JSON string; kept when the verdict is reject
-- Output: 1 decided | 0 not parked
local step, member, verdict, reason = unpack(ARGV)
local row = read_row(step)
if not row or row.state ~= 'parked' or redis.call('HGET', JOB, 'status') ~= 'parked' then return 0 end

-- Read the question of this step: another call of the turn may be parked for another reason.
local decision = 'approved'
if verdict == 'reject' then
  local why = redis.call('HGET', STEPS, step .. ':why')
  local asked = why and cjson.decode(why) or {}
  -- Releases before 0.2 stored no kind. Their reason begins with it, before the colon.
  local about = asked.kind or string.match(asked.reason or '', '^([%a_]+): ')
  decision = 'rejected:|{"about":' .. (about and cjson.encode(about) or 'null') .. ',"reason":' .. reason .. '}'
end
write_row(step, 'pending', row.fence, 0, row.attempt, row.losses, '', decision)
redis.call('HDEL', STEPS, step .. ':why')
if redis.call('HINCRBY', JOB, 'parked', -1) == 0 then
  -- The wait for a human does not count for the job's timeout: move its deadline by the wait.
  local deadline_ms, parked_ms = unpack(redis.call('HMGET', JOB, 'deadline_ms', 'parked_ms'))
  redis.call('HSET', JOB, 'status', 'running', 'deadline_ms', string.format('%d', deadline_ms + clock() - parked_ms))
  redis.call('HDEL', JOB, 'waiting')
else
  show_parked()
end
keep_new()
owe(clock(), member)
return 1
