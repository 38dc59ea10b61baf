-- Shared by the scripts that begin or end work on a step: a job's clock. Only the job's own work counts for session_timeout_s.
-- What others take (downstreams, humans, children that wait, a lack of workers) is counted apart, for max_wait_s.
--
-- Fields of JOB:
--   working        number of its steps that workers have claimed
--   held_since     ms: when no step works, others hold the job from this moment on. It may lie in the future: at the end of the
--                  job's own backoff, which counts as work. Absent: the job waits for its session.
--   held_ms        how long others held the job, up to the last claim
--   deadline_ms    ms when session_timeout_s has passed. It moves by what others take.
--   ends_by_ms     ms when deadline_s has passed
--   max_worked_ms, max_held_ms      bounds of the sums of work and of holds. A replay raises them.
--   timeout_ms, max_wait_ms, max_total_ms      limits of the agent: session_timeout_s, max_wait_s, deadline_s
--   holder         JSON of a Holder: who held the job last, and since when
--   child          `turn|worked_ms|held_ms`: the longest work of a child in this turn, and held_ms when it began

-- A job without max_wait_s ends before its keys expire: otherwise it would vanish.
local MOST_HELD_MS = (HELD_S - 86400) * 1000

-- The clock, then the fields of JOB that are named.
local function read_clock(...)
  local found = redis.call('HMGET', JOB, 'working', 'held_since', 'held_ms', 'deadline_ms', 'ends_by_ms', 'max_held_ms',
    'max_wait_ms', 'holder', ...)
  local most_held_ms = tonumber(found[6]) or math.min(tonumber(found[7]) or MOST_HELD_MS, MOST_HELD_MS)
  return { working = tonumber(found[1] or '0'), held_since = tonumber(found[2]), held_ms = tonumber(found[3] or '0'),
           deadline_ms = tonumber(found[4]), ends_by_ms = tonumber(found[5]), most_held_ms = most_held_ms,
           holder = found[8] }, unpack(found, 9)
end

-- Steps of the job work no more. The job is held from `since` on, unless another step works, or backs off for longer.
local function stop_work(time, steps, since)
  time.working = math.max(0, time.working - steps)
  time.held_since = math.max(time.held_since or 0, since)
end

-- When a steward must look at a step that is due at `due`: before its keys expire, and not after a limit of the job is reached.
local function look_at(now, due, time)
  local bound = math.max(now, time.held_since or now) + math.max(0, time.most_held_ms - time.held_ms)
  if (time.held_since or 0) > now and time.deadline_ms then bound = math.min(bound, time.deadline_ms + 1) end
  if time.ends_by_ms then bound = math.min(bound, time.ends_by_ms) end
  return math.min(due, bound, now + KEPT_S * 500)
end

-- The field `holder`, and since when this holder has held the job. Deferrals of one turn by one holder are one hold.
-- `downstream` is a JSON string, or null.
local function hold_by(time, step, owner, downstream, since)
  local name = '{"turn":' .. string.match(step, '^%d+') .. ',"owner":"' .. owner .. '","downstream":' .. downstream .. ',"since_ms":'
  local holder = time.holder or ''
  if string.sub(holder, 1, #name) == name then since = tonumber(string.match(holder, '(%d+)}$')) end
  return name .. string.format('%d', since) .. '}', since
end

-- Count the work of a child as the job's own: others held the job for less time. Children of one turn work at the same time, so
-- only the longest work counts.
local function charge_child(time, step, worked_ms)
  local turn = string.match(step, '^%d+')
  local of, charged_ms, least_ms = string.match(redis.call('HGET', JOB, 'child') or '', '^(%d+)|(%d+)|(%d+)$')
  if of ~= turn then charged_ms, least_ms = 0, time.held_ms end
  charged_ms, least_ms, worked_ms = tonumber(charged_ms), tonumber(least_ms), tonumber(worked_ms)
  local more_ms = math.max(0, math.min(worked_ms - charged_ms, time.held_ms - least_ms))
  time.held_ms = time.held_ms - more_ms
  if time.deadline_ms then time.deadline_ms = time.deadline_ms - more_ms end
  return string.format('%s|%d|%d', turn, math.max(charged_ms, worked_ms), least_ms)
end
