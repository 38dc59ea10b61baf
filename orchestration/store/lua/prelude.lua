-- Shared by every script of the step machine.
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
-- A row is `state|fence|until_ms|attempt|losses|nonce|verdict`. until_ms is the end of the lease when the step is started, else
-- when it is due.
-- A nonce that begins with `!` says: the step had begun under an earlier claim whose worker vanished, so an effect may have
-- happened. The mark outlives a lost reply, a deferral and a dead letter; a human's decision or a result ends it.
-- KEPT_S, how long a session outlives its last write, and HELD_S, how long one that waits for a human, are set above this text.
-- Time is the server's. Scripts read and decide first and write last, so an error leaves no half decision.

local JOB, STEPS, SESSION, LOG, TRACE, DUE, OWED, COUNTERS, WAITING, JOBS, DEAD, LETTERS, MODEL_QUEUE, TOOLS_QUEUE = unpack(KEYS)

-- Statuses of a job that has ended. A status that is neither here nor in RUNNABLE is of a later release.
local ENDED = { completed = true, dead_lettered = true, cancelled = true, timed_out = true }
local RUNNABLE = { queued = true, running = true, parked = true }

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function read_row(step)
  local raw = redis.call('HGET', STEPS, step)
  if not raw then return nil end
  local state, fence, till, attempt, losses, nonce, verdict =
    string.match(raw, '^(%a+)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|(.*)$')
  return { state = state, fence = fence, till = tonumber(till), attempt = tonumber(attempt),
           losses = tonumber(losses), nonce = nonce, verdict = verdict }
end

local function row_text(state, fence, till, attempt, losses, nonce, verdict)
  return state .. '|' .. fence .. '|' .. string.format('%d', till) .. '|' .. attempt .. '|' .. losses
    .. '|' .. nonce .. '|' .. verdict
end

local function write_row(step, ...)
  redis.call('HSET', STEPS, step, row_text(...))
end

-- '!' if the step had begun under an earlier claim, else ''.
local function mark(row)
  return string.sub(row.nonce, 1, 1) == '!' and '!' or ''
end

-- The row of a step that the caller holds under `fence`. nil: another worker has it, or it is over.
local function held(step, fence)
  local row = read_row(step)
  if row and row.fence == fence and (row.state == 'started' or row.state == 'waiting') then return row end
  return nil
end

-- Owe a step. With a queue and its message, hand it off at once; without, the caller publishes it.
local function owe(now, member, queue, message)
  redis.call('ZREM', DUE, member)
  redis.call('ZADD', OWED, now, member)
  if queue and message ~= '' then redis.call('LPUSH', queue, message) end
end

local function settle_member(member)
  redis.call('ZREM', DUE, member)
  redis.call('ZREM', OWED, member)
end

local function expire_all(seconds, only)
  for _, key in ipairs({ JOB, STEPS, SESSION, LOG, TRACE }) do redis.call('EXPIRE', key, seconds, only) end
end

-- Every claim prolongs the life of the job's and the session's keys. GT: never shorter than what a hold has given them.
local function keep()
  expire_all(KEPT_S, 'GT')
end

-- As `keep`, for keys that may be new: EXPIRE GT leaves a key without a time to live as it is.
local function keep_new()
  expire_all(KEPT_S, 'NX')
  keep()
end

-- A dead letter and a parked call wait for a human. They, and the session they hold, are kept longer.
local function hold()
  for _, key in ipairs({ JOB, STEPS, SESSION, LOG, TRACE, WAITING }) do redis.call('EXPIRE', key, HELD_S) end
  for _, part in ipairs({ ':results', ':memory', ':archive', ':originals' }) do redis.call('EXPIRE', SESSION .. part, HELD_S) end
end

local function add_usage(usage)
  for _, one in ipairs(usage) do redis.call('HINCRBY', JOB, one[1], one[2]) end
end

-- Add one to each of these counters of drift.
local function count_drift(now, names)
  if #names == 0 then return end
  local hour = string.gsub(COUNTERS, 'counters$', 'drift:' .. math.floor(now / 3600000)) -- in this slot, though not declared
  for _, name in ipairs(names) do redis.call('HINCRBY', hour, name, 1) end
  redis.call('EXPIRE', hour, 8 * 86400)
end

local function ordinal(step)
  return tonumber(string.match(step, '%.(%d+)$') or '-1')
end

-- Steps that have a row, in order of their ordinals.
local function rows()
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', STEPS)) do
    if string.match(field, '^%d+%.?%d*$') then found[#found + 1] = field end
  end
  table.sort(found, function(a, b) return ordinal(a) < ordinal(b) end)
  return found
end

-- Write into the job what it waits for: the first of its parked steps.
local function show_parked()
  for _, step in ipairs(rows()) do
    if read_row(step).state == 'parked' then
      redis.call('HSET', JOB, 'waiting', redis.call('HGET', STEPS, step .. ':why'))
      return
    end
  end
end

-- End every step of the job. Open calls are answered with `text`: every provider refuses a call without a result (HTTP 400).
local function repair(text, member_base)
  local group = tonumber(redis.call('HGET', SESSION, 'groups') or '0')
  for _, step in ipairs(rows()) do
    local raw = redis.call('HGET', STEPS, step .. ':call')
    if raw then
      local call = cjson.decode(raw)
      redis.call('RPUSH', LOG, cjson.encode({
        role = 'tool', group = group, ordinal = ordinal(step), call_id = call.id, tool = call.name, content = text,
        is_error = true }))
    end
    settle_member(member_base .. step)
  end
  redis.call('DEL', STEPS)
  redis.call('HSET', JOB, 'open', 0)
end

-- Give the session to the next job in line. Returns its `job|priority`, or ''.
local function hand_over(now, session_id)
  local next_job = redis.call('LPOP', WAITING)
  if not next_job then
    redis.call('HDEL', SESSION, 'active')
    return ''
  end
  local job, priority = string.match(next_job, '^(.*)|(%a+)$')
  redis.call('HSET', SESSION, 'active', job)
  redis.call('ZADD', OWED, now, priority .. '|' .. session_id .. '|' .. job .. '|1')
  return next_job
end
