-- Shared by the scripts that end, resume or hold a job.

-- Keep the keys of a job that waits for a human (a dead letter, a parked call) for longer, and those of its session.
local function hold()
  for _, key in ipairs({ JOB, STEPS, SESSION, LOG, TRACE, WAITING }) do redis.call('EXPIRE', key, HELD_S) end
  for _, part in ipairs({ ':results', ':memory', ':archive', ':originals' }) do redis.call('EXPIRE', SESSION .. part, HELD_S) end
end

local function ordinal(step)
  return tonumber(string.match(step, '%.(%d+)$') or '-1')
end

-- The steps that have a row, ordered by ordinal.
local function rows()
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', STEPS)) do
    if string.match(field, '^%d+%.?%d*$') then found[#found + 1] = field end
  end
  table.sort(found, function(a, b) return ordinal(a) < ordinal(b) end)
  return found
end

-- Set the entry of the job in the index of letters to redrive. '': it has none. (The index is not declared, but in the same
-- slot. If it is damaged, the letter must still be written.)
local function set_redrive(entry)
  local index, earlier = string.gsub(DUE, 'due$', 'redrive'), redis.call('HGET', JOB, 'redrive')
  if earlier then redis.pcall('ZREM', index, earlier) end
  if entry ~= '' then
    redis.pcall('ZADD', index, 0, entry)
    redis.call('HSET', JOB, 'redrive', entry)
  elseif earlier then
    redis.call('HDEL', JOB, 'redrive')
  end
end

-- The priority that the job was enqueued with. It is `normal` if the record of it can't be read.
local function own_priority()
  local is_readable, spec = pcall(cjson.decode, redis.call('HGET', JOB, 'spec') or '')
  return is_readable and spec.priority or 'normal'
end

-- Give a step another member in due and owed. Its time does not change.
local function move_member(from, to)
  if from == to then return end
  for _, index in ipairs({ DUE, OWED }) do
    local score = redis.call('ZSCORE', index, from)
    if score then
      redis.call('ZREM', index, from)
      redis.call('ZADD', index, score, to)
    end
  end
end

-- Write to the job what it waits for: the first of its parked steps.
local function show_parked()
  for _, step in ipairs(rows()) do
    if read_row(step).state == 'parked' then
      redis.call('HSET', JOB, 'waiting', redis.call('HGET', STEPS, step .. ':why'))
      return
    end
  end
end

-- A parked step is parked no more. The job shows another step that is parked. If there is none, it runs.
local function unpark(step)
  redis.call('HDEL', STEPS, step .. ':why', step .. ':expiry')
  if redis.call('HINCRBY', JOB, 'parked', -1) > 0 then
    show_parked()
  else
    redis.call('HSET', JOB, 'status', 'running')
    redis.call('HDEL', JOB, 'waiting')
  end
end

-- End every step of the job. Open calls are answered with `text`: every provider refuses a call without a result (HTTP 400).
local function repair(text, member_base)
  local group
  for _, step in ipairs(rows()) do
    local raw = redis.call('HGET', STEPS, step .. ':call')
    if raw then
      local call = cjson.decode(raw)
      group = group or tonumber(redis.call('HGET', SESSION, 'groups') or '0')
      append(cjson.encode({
        role = 'tool', group = group, ordinal = ordinal(step), call_id = call.id, tool = call.name, content = text,
        is_error = true }))
    end
    settle_member(member_base .. step)
  end
  redis.call('DEL', STEPS)
  if group then redis.call('HSET', JOB, 'open', 0) end -- there were open calls
end

-- Give the session to the next job in line. Returns its `job|priority`, or ''. `ended` must have the session: if its record was
-- lost, another job may have it since.
-- If the session is damaged, the next job is still owed. Its claim finds the damage, and it becomes a dead letter too.
local function hand_over(now, session_id, ended)
  local active = redis.pcall('HGET', SESSION, 'active')
  if type(active) == 'string' and active ~= ended then return '' end
  local next_job = redis.pcall('LPOP', WAITING)
  if type(next_job) ~= 'string' then
    redis.pcall('HDEL', SESSION, 'active')
    return ''
  end
  local job, priority = string.match(next_job, '^(.*)|(%a+)$')
  redis.call('ZADD', OWED, now, priority .. '|' .. session_id .. '|' .. job .. '|1')
  redis.pcall('HSET', SESSION, 'active', job)
  -- From now on it waits for a worker. (Its key is not declared, but is in the same slot.)
  local key = job_key(DUE, job)
  if redis.pcall('HEXISTS', key, 'status') == 1 then redis.pcall('HSET', key, 'held_since', string.format('%d', now)) end
  return next_job
end

-- Is the key of a wrong type? Then no command of these scripts can read or change it.
local function is_damaged(key)
  local found = redis.call('TYPE', key).ok
  return found ~= 'hash' and found ~= 'none'
end
