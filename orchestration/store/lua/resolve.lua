-- Record a human's decision on a parked step: the step is owed again, with the decision in its row. The first decision wins.
-- Shared: names, prelude, endings
-- ARGV:
--   step
--   member       of the step, in due and owed
--   verdict      approve | reject
--   reason       a JSON string; kept when the verdict is reject
-- Output: 1 decided | 0 not parked | -1 the question has expired
local step, member, verdict, reason = unpack(ARGV)
check_session()
local row = read_row(step)
if not row or row.state ~= 'parked' or redis.call('HGET', JOB, 'status') ~= 'parked' then return 0 end
local now = clock()
if row.till > 0 and row.till <= now then return -1 end

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
unpark(step)
-- Releases before 0.2 did not write `held_since`. They counted the wait for a human from the time of the first question.
local parked_ms = redis.call('HGET', JOB, 'parked_ms')
if parked_ms then redis.call('HSETNX', JOB, 'held_since', parked_ms) end
keep_new()
owe(now, member)
return 1
