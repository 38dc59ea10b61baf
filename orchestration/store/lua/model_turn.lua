-- Shared by the scripts that commit a model turn, which may be the last. Their arguments are lists.

-- Append messages to the log.
local function add_messages(messages)
  if length(messages) > 0 then append(items(messages)) end
end

-- Add the usage to the job's fields.
local function add_usage(usage)
  for field, amount in rows_of(usage, 2) do redis.call('HINCRBY', JOB, field, amount) end
end

-- Add one to each of these drift counters.
local function count_drift(now, names)
  if length(names) == 0 then return end
  local hour = string.gsub(COUNTERS, 'counters$', 'drift:' .. math.floor(now / 3600000)) -- this key is not declared, but in the same slot
  for name in rows_of(names, 1) do redis.call('HINCRBY', hour, name, 1) end
  redis.call('EXPIRE', hour, 8 * 86400)
end
