-- Shared by every script of the step machine; each script is this text followed by its own.
--
-- KEYS are the same for all of them, and all in the session's slot:
--   1 job      HASH   the job's record            7 owed      ZSET  member -> ms since when it is published, unclaimed
--   2 steps    HASH   rows of the current turn    8 counters  HASH  the fleet's counters
--   3 session  HASH                               9 waiting   LIST  `job|priority`, next first
--   4 log      LIST   messages                   10 jobs      ZSET  job -> ms of creation
--   5 trace    LIST   TraceRecords               11 dead      ZSET  job -> ms of its dead letter
--   6 due      ZSET   member -> ms when due      12 letters   HASH  job -> DeadLetterRecord
--  13, 14 (only where state and broker are one server) the model and tools queues of the job's priority: hand-off
--
-- A member of due and owed is `priority|session|job|step`; a step with a dot in it is a tool call.
-- A row is `state|fence|until_ms|attempt|losses|nonce|verdict`: until_ms is the end of the lease when started, else when it is due.
-- A nonce that begins with `!` says that the step had begun under an earlier claim whose worker vanished: an effect may have
-- happened. It outlives a lost reply, a deferral and a dead letter; a human's decision or a result ends it.
-- KEPT_S, how long a session outlives its last write, and HELD_S, how long one that waits for a human, are set above this text.
-- Time is the server's. Scripts read and decide first and write last, so an error leaves no half decision.

local J, R, S, L, T = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local DUE, OWED, COUNTERS, WAITING = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local JOBS, DEAD, LETTERS = KEYS[10], KEYS[11], KEYS[12]

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function read_row(step)
  local raw = redis.call('HGET', R, step)
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
  redis.call('HSET', R, step, row_text(...))
end

local function mark(row)
  return string.sub(row.nonce, 1, 1) == '!' and '!' or ''
end

-- The row of a step that the caller holds under `fence`, or nil: someone else has it, or it is over.
local function held(step, fence)
  local row = read_row(step)
  if row and row.fence == fence and (row.state == 'started' or row.state == 'waiting') then return row end
  return nil
end

local function owe(now, member, queue, message)
  redis.call('ZREM', DUE, member)
  redis.call('ZADD', OWED, now, member)
  if KEYS[queue] and message ~= '' then redis.call('LPUSH', KEYS[queue], message) end
end

local function settle_member(member)
  redis.call('ZREM', DUE, member)
  redis.call('ZREM', OWED, member)
end

-- Every claim prolongs the life of the job's and the session's keys. GT: never shorter than what a hold has given them.
local function keep()
  for i = 1, 5 do redis.call('EXPIRE', KEYS[i], KEPT_S, 'GT') end
end

-- The same where keys may be new: GT takes a key without a time to live for immortal.
local function keep_new()
  for i = 1, 5 do redis.call('EXPIRE', KEYS[i], KEPT_S, 'NX') end
  keep()
end

-- A dead letter and a parked call wait for a human: they, and the session they hold, are kept longer.
local function hold()
  for i = 1, 5 do redis.call('EXPIRE', KEYS[i], HELD_S) end
  redis.call('EXPIRE', WAITING, HELD_S)
  for _, part in ipairs({ ':results', ':memory', ':archive', ':originals' }) do redis.call('EXPIRE', S .. part, HELD_S) end
end

local function add_usage(first)
  local names = { 'in', 'cached', 'cwrite', 'out', 'reasoning', 'unreported' }
  for i = 1, 6 do
    local n = ARGV[first + i - 1]
    if n ~= '0' then redis.call('HINCRBY', J, names[i], n) end
  end
end

-- Add one to each counter of drift: ARGV[at] names, and then the names.
local function count_drift(now, at)
  local names = tonumber(ARGV[at])
  if names == 0 then return end
  local hour = string.gsub(COUNTERS, 'counters$', 'drift:' .. math.floor(now / 3600000)) -- in this slot, though not declared
  for i = 1, names do redis.call('HINCRBY', hour, ARGV[at + i], 1) end
  redis.call('EXPIRE', hour, 8 * 86400)
end

local function ordinal(step)
  return tonumber(string.match(step, '%.(%d+)$') or '-1')
end

-- Steps that have a row, in order of their ordinals.
local function rows()
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', R)) do
    if string.match(field, '^%d+%.?%d*$') then found[#found + 1] = field end
  end
  table.sort(found, function(a, b) return ordinal(a) < ordinal(b) end)
  return found
end

-- Say what a parked job waits for: the first of its parked steps.
local function show_parked()
  for _, step in ipairs(rows()) do
    if read_row(step).state == 'parked' then
      redis.call('HSET', J, 'waiting', redis.call('HGET', R, step .. ':why'))
      return
    end
  end
end

-- End every step there is: open calls are answered with `text`, for a call without a result is a hard 400 at every provider.
local function repair(text, member_base)
  local group = tonumber(redis.call('HGET', S, 'groups') or '0')
  for _, step in ipairs(rows()) do
    local raw = redis.call('HGET', R, step .. ':call')
    if raw then
      local call = cjson.decode(raw)
      redis.call('RPUSH', L, cjson.encode({
        role = 'tool', group = group, ordinal = ordinal(step), call_id = call.id, tool = call.name, content = text,
        is_error = true }))
    end
    settle_member(member_base .. step)
  end
  redis.call('DEL', R)
  redis.call('HSET', J, 'open', 0)
end

-- Give the session to the next job in line. Returns its `job|priority`, or ''.
local function hand_over(now, session_id)
  local following = redis.call('LPOP', WAITING)
  if not following then
    redis.call('HDEL', S, 'active')
    return ''
  end
  local job, priority = string.match(following, '^(.*)|(%a+)$')
  redis.call('HSET', S, 'active', job)
  redis.call('ZADD', OWED, now, priority .. '|' .. session_id .. '|' .. job .. '|1')
  return following
end
