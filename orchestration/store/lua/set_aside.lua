-- Put back a step whose records a worker can't read. When its tries are used up, make it a dead letter.
-- Shared: names, prelude, endings
-- ARGV:
--   step
--   member         of the step, in due and owed
--   member_base    `priority|session|job|`
--   job
--   session
--   nonce          of the worker's claim, whether it succeeded or failed
--   max_tries      how often the step is put back
--   wait_ms        until it is due again
--   letter         JSON of the dead letter; its times are 0, and are filled in
--   failure        JSON
--   repair_text    the answer to open calls, when the job was cancelled
-- Output: {'left' | 'buried' | 'cancelled' | 'gone', next `job|priority` or ''}
-- Any key may be damaged, or forbidden to this Redis user. So each command may fail, and the others must still run.
local step, member, member_base, job, session, nonce, max_tries, wait_ms, letter, failure, repair_text = unpack(ARGV)
check_session()
local UNREADABLE = string.gsub(DUE, 'due$', 'unreadable') -- this key is not declared, but in the same slot

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return nil end
  return reply
end

local now = clock()
local is_readable, row = pcall(read_row, step)
row = is_readable and row or nil
local is_ours = row and row.state == 'started' and (row.nonce == nonce or row.nonce == '!' .. nonce)
if row and row.state == 'started' and not is_ours and row.till > now then return { 'gone', '' } end
local status = try('HGET', JOB, 'status') -- nil: can't be read; false: no such job
local is_over = is_readable and not row and (status == 'running' or status == 'parked')
if status == false or has_ended(status) or is_over or row and row.state == 'dead' then -- dead: it has its letter
  settle_member(member)
  return { 'gone', '' }
end

local is_cancelled = try('HEXISTS', JOB, 'cancel') == 1
local tries = try('HINCRBY', UNREADABLE, member, 1) or tonumber(max_tries)
try('EXPIRE', UNREADABLE, KEPT_S)
if tries < tonumber(max_tries) and not is_cancelled then
  if is_ours then
    write_row(step, 'pending', row.fence, now + wait_ms, row.attempt, row.losses, mark(row), row.decision)
    try('HINCRBY', JOB, 'working', -1)
    try('HSET', JOB, 'held_since', string.format('%d', now))
  end
  if try('ZADD', DUE, now + wait_ms, member) then try('ZREM', OWED, member) end -- the step must stay in due or owed
  return { 'left', '' }
end

try('HDEL', UNREADABLE, member)
settle_member(member)
local ended = is_cancelled and 'cancelled' or 'dead_lettered'
try('HSET', JOB, 'status', ended, 'failure', failure, 'finished_ms', string.format('%d', now))
try('HDEL', JOB, 'waiting')
try('HINCRBY', COUNTERS, 'jobs.' .. ended, 1)
if is_cancelled then
  if not pcall(repair, repair_text, member_base) then try('DEL', STEPS) end
  local has_next, next_job = pcall(hand_over, now, session, job)
  return { 'cancelled', has_next and next_job or '' }
end
if row then
  write_row(step, 'dead', row.fence, 0, row.attempt, row.losses, mark(row), row.decision)
elseif is_readable then -- it was never claimed
  write_row(step, 'dead', '0', 0, 0, 0, '', '')
end
letter = string.gsub(letter, '_ms":0', '_ms":' .. string.format('%d', now))
try('ZADD', DEAD, now, job)
try('HSET', LETTERS, job, letter)
pcall(hold)
return { 'buried', '' }
