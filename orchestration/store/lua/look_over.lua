-- Look at jobs of one partition that no message will reach, because an entry of an index or of a line is lost. Write the entry
-- again. Report jobs that have lost a record.
-- Shared: names, prelude, lost, endings
-- JOB, STEPS, SESSION, LOG and WAITING are bound to each job that is looked at.
-- ARGV:
--   newest    how many of the newest jobs to look at
--   first     rank of the first older job to look at; the newest one has rank 0
--   older     how many older jobs to look at
-- Output: {next rank of an older job, entries written, {`lost|priority|session|job|step`...}, {`session|job` without its letter...}}
local newest, first, older = unpack(ARGV)
local now = clock()
local restored, lost, unlisted = 0, {}, {}

local function restore(command, ...)
  redis.call(command, ...)
  restored = restored + 1
end

local function is_listed(member)
  return redis.call('ZSCORE', DUE, member) or redis.call('ZSCORE', OWED, member)
end

-- A job may be queued for longer than its keys live: behind a letter that waits for a human, or in the backlog. It keeps them.
local function keep_queued()
  if redis.call('TTL', JOB) > KEPT_S - 86400 then return end
  for _, key in ipairs({ JOB, SESSION, LOG, WAITING }) do redis.call('EXPIRE', key, KEPT_S, 'GT') end
  for _, part in ipairs({ ':memory', ':archive', ':results', ':originals' }) do redis.call('EXPIRE', SESSION .. part, KEPT_S, 'GT') end
end

-- A job that its session's line has lost joins it again. If no living job has the session, the first claim takes it.
local function look_at_queued(job, priority, member, active)
  keep_queued()
  if active == job then
    if not is_listed(member) then restore('ZADD', OWED, now, member) end
    return
  end
  local key = active and job_key(DUE, active) or ''
  local status, discarded = unpack(active and redis.call('HMGET', key, 'status', 'discarded') or {})
  if active and not status and redis.call('EXISTS', key .. ':steps') == 1 then
    lost[#lost + 1] = 'job|' .. string.gsub(member, '|[^|]*|1$', '|' .. active .. '|1')
  elseif not status or discarded or has_ended(status) and status ~= 'dead_lettered' then
    if active then redis.call('HDEL', SESSION, 'active') end
    if not is_listed(member) then restore('ZADD', OWED, now, member) end
  else
    local line = redis.pcall('LRANGE', WAITING, 0, -1)
    if line.err then redis.call('DEL', WAITING) end
    for _, entry in ipairs(line.err and {} or line) do
      if string.match(entry, '^(.*)|%a+$') == job then return end
    end
    restore('RPUSH', WAITING, job .. '|' .. priority)
    redis.call('EXPIRE', WAITING, KEPT_S, 'NX')
    redis.call('EXPIRE', WAITING, KEPT_S, 'GT')
  end
end

local function look_at_letter(job, session, finished_ms, redrive)
  if not redis.call('ZSCORE', DEAD, job) then restore('ZADD', DEAD, finished_ms or now, job) end
  if redis.call('HEXISTS', LETTERS, job) == 0 then unlisted[#unlisted + 1] = session .. '|' .. job end
  local index = partition_of(DUE) .. 'redrive'
  if redrive and not redis.call('ZSCORE', index, redrive) then restore('ZADD', index, 0, redrive) end
end

local function look_at_steps(job, base, status, active, open, turn)
  if active and active ~= job then
    lost[#lost + 1] = 'session|' .. base .. (turn or '1')
  elseif is_damaged(STEPS) then
    lost[#lost + 1] = 'steps|' .. base .. (turn or '1')
    return
  elseif has_lost_rows(status, open) then
    lost[#lost + 1] = 'steps|' .. base .. (turn or '1')
  end
  for _, step in ipairs(rows()) do
    local row = read_row(step)
    if row.state ~= 'dead' and not is_listed(base .. step) then restore('ZADD', DUE, math.max(now, row.till), base .. step) end
  end
end

local function look_at_job(job)
  JOB = job_key(DUE, job)
  STEPS = JOB .. ':steps'
  local status, session, spec, lane, open, turn, discarded, finished_ms, redrive = unpack(redis.call('HMGET', JOB, 'status',
    'session', 'spec', 'lane', 'open', 'turn', 'discarded', 'finished_ms', 'redrive'))
  if not status or discarded or has_ended(status) and status ~= 'dead_lettered' then return end
  local fixed = cjson.decode(spec)
  session = session or fixed.session_id
  SESSION = session_key(DUE, session)
  LOG, WAITING = SESSION .. ':log', SESSION .. ':waiting'
  local priority = lane or fixed.priority or 'normal'
  local base = priority .. '|' .. session .. '|' .. job .. '|'
  local active = redis.call('HGET', SESSION, 'active')
  if status == 'dead_lettered' then look_at_letter(job, session, finished_ms, redrive)
  elseif status == 'queued' then look_at_queued(job, priority, base .. '1', active)
  else look_at_steps(job, base, status, active, open, turn) end
end

-- List a job in `jobs` again. An entry of `due` or `owed` ends with the job and the step.
local function list_job(job)
  if not job or redis.call('ZSCORE', JOBS, job) then return end
  local created_ms = redis.call('HGET', job_key(DUE, job), 'created_ms')
  if created_ms then restore('ZADD', JOBS, created_ms, job) end
end

-- A key of a wrong type would stop every script that uses it. Its entries are written again below, as far as they are
-- known.
for key, kind in pairs({ [DUE] = 'zset', [OWED] = 'zset', [JOBS] = 'zset', [DEAD] = 'zset', [LETTERS] = 'hash', [COUNTERS] = 'hash' }) do
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then restore('DEL', key) end
end

for _, index in ipairs({ DUE, OWED }) do
  for _, member in ipairs(redis.call('ZRANGE', index, 0, 50)) do list_job(string.match(member, '^%a+|[^|]*|([^|]*)|[^|]*$')) end
end
for _, job in ipairs(redis.call('ZREVRANGE', DEAD, 0, 50)) do list_job(job) end
if redis.call('TTL', JOBS) == -1 then redis.call('EXPIRE', JOBS, HELD_S) end

for _, job in ipairs(redis.call('ZREVRANGE', JOBS, 0, newest - 1)) do pcall(look_at_job, job) end
local rest = redis.call('ZREVRANGE', JOBS, first, first + older - 1)
for _, job in ipairs(rest) do pcall(look_at_job, job) end
if restored > 0 then redis.pcall('HINCRBY', COUNTERS, 'records.restored', restored) end
return { #rest == tonumber(older) and first + older or tonumber(newest), restored, lost, unlisted }
