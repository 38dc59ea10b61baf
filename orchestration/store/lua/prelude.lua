-- Shared by the scripts that work on one step or one job.
--
-- All keys lie in the session's slot.
-- KEYS:
--   job          HASH   the job's record
--   steps        HASH   rows of the current turn
--   session      HASH
--   log          LIST   messages
--   trace        LIST   TraceRecords
--   due          ZSET   member -> ms when due
--   owed         ZSET   member -> ms since when it is published, unclaimed
--   counters     HASH   the fleet's counters
--   waiting      LIST   `job|priority`, next first
--   jobs         ZSET   job -> ms of creation
--   dead         ZSET   job -> ms of its dead letter
--   letters      HASH   job -> DeadLetterRecord
--   model_queue  LIST   hand-off only, when state and broker are one server: the model queue of the job's priority
--   tools_queue  LIST   hand-off only: the tools queue of the job's priority
--
-- A member of due and owed is `priority|session|job|step`. A step with a dot in it is a tool call.
-- A row is `state|fence|until_ms|attempt|losses|nonce|decision`. until_ms is the end of the lease when the step is started, else
-- when it is due.
-- A nonce that begins with `!` means that the step began under an earlier claim whose worker vanished, so it may have had an
-- effect. The mark survives a lost reply, a deferral and a dead letter. A human's decision or a result removes it.
-- A row has a nonce as long as it is started. It names the worker: `worker.life.number`. A `+` behind it means
-- that the step runs alone in a separate process.
-- The loader sets KEPT_S, how long a session is kept after its last write, and HELD_S, how long if it waits for a human.
-- Time is the server's. Scripts read and decide first and write last, so an error does not leave half a decision.

local JOB, STEPS, SESSION, LOG, TRACE, DUE, OWED, COUNTERS, WAITING, JOBS, DEAD, LETTERS, MODEL_QUEUE, TOOLS_QUEUE = unpack(KEYS)

-- Statuses of a job that may run, and of one that has ended. Any other status is of a later release.
local function may_run(status)
  return status == 'queued' or status == 'running' or status == 'parked'
end

local function has_ended(status)
  return status == 'completed' or status == 'dead_lettered' or status == 'cancelled' or status == 'timed_out'
end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function read_row(step)
  local raw = redis.call('HGET', STEPS, step)
  if not raw then return nil end
  local state, fence, till, attempt, losses, nonce, decision =
    string.match(raw, '^(%a+)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|(.*)$')
  if not state then error({ err = 'UNREADABLE the row of a step' }) end
  return { state = state, fence = fence, till = tonumber(till), attempt = tonumber(attempt),
           losses = tonumber(losses), nonce = nonce, decision = decision }
end

local function row_text(state, fence, till, attempt, losses, nonce, decision)
  return state .. '|' .. fence .. '|' .. string.format('%d', till) .. '|' .. attempt .. '|' .. losses
    .. '|' .. nonce .. '|' .. decision
end

local function write_row(step, ...)
  redis.call('HSET', STEPS, step, row_text(...))
end

-- '!' if the step began under an earlier claim, else ''.
local function mark(row)
  return string.sub(row.nonce, 1, 1) == '!' and '!' or ''
end

-- Do the job and the session belong together? A job names its session in `session`. Releases before 0.3 named it in `spec` only.
-- A job without a readable record has no session that could be another one.
local function is_of_session()
  local session = redis.pcall('HGET', JOB, 'session')
  if not session then
    local spec = redis.pcall('HGET', JOB, 'spec')
    local is_readable, fixed = pcall(cjson.decode, type(spec) == 'string' and spec or '')
    session = is_readable and type(fixed) == 'table' and fixed.session_id
  end
  return type(session) ~= 'string' or session_key(JOB, session) == SESSION
end

-- Refuse a call that names a job together with another job's session.
local function check_session()
  if not is_of_session() then error('WRONG_SESSION', 0) end
end

-- The row of a step that the caller has claimed under `fence`. nil if another worker has claimed it, or if it has ended.
local function held(step, fence)
  check_session()
  local row = read_row(step)
  if row and row.fence == fence and (row.state == 'started' or row.state == 'waiting') then return row end
  return nil
end

-- Like `held`, if the caller needs no other field of the row.
local function is_held(step, fence)
  check_session()
  local raw = redis.call('HGET', STEPS, step)
  if not raw then return false end
  local state, fence_now = string.match(raw, '^(%a+)|(%d+)|')
  if not state then error({ err = 'UNREADABLE the row of a step' }) end
  return fence_now == fence and (state == 'started' or state == 'waiting')
end

-- Mark a new step as owed, which can't be in due. With a queue and a message, push the message. Otherwise the caller publishes the step.
local function owe_new(now, member, queue, message)
  redis.call('ZADD', OWED, now, member)
  if queue and message ~= '' then redis.call('LPUSH', queue, message) end
end

-- Mark a step as owed that may be in due. The caller publishes it.
local function owe(now, member)
  redis.call('ZREM', DUE, member)
  redis.call('ZADD', OWED, now, member)
end

local function settle_member(member)
  redis.call('ZREM', DUE, member)
  redis.call('ZREM', OWED, member)
end

-- The first five keys belong to the job and the session: JOB, STEPS, SESSION, LOG, TRACE.
local function expire_all(only)
  for n = 1, 5 do redis.call('EXPIRE', KEYS[n], KEPT_S, only) end
end

-- Extend the time to live of the job's and the session's keys, at every claim. GT: never shorten the longer time of a hold.
local function keep()
  expire_all('GT')
end

-- Like `keep`, for keys that may be new: EXPIRE GT does not change a key that has no time to live.
local function keep_new()
  expire_all('NX')
  keep()
end

-- Append messages to the log, and count them. (The session may be damaged.)
local function append(...)
  redis.call('RPUSH', LOG, ...)
  redis.pcall('HINCRBY', SESSION, 'entries', select('#', ...))
end

-- Append the record of an attempt. The list may be new.
local function add_trace(trace)
  if redis.call('RPUSH', TRACE, trace) == 1 then redis.call('EXPIRE', TRACE, KEPT_S) end
end
