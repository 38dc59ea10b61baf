-- Shared by the scripts that need a key of another job or session of the same partition. No such key is declared, but all of
-- them are in the same slot. `../../keyspace.py` builds the same keys in Python.

-- The name as it is in keys: one more `~` if it ends like the key of a part. `parts` holds the names of the parts.
local function stem(name, parts)
  for _, part in ipairs(parts) do
    if string.find(name, ':' .. part .. '~*$') then return name .. '~' end
  end
  return name
end

-- The beginning of all keys of a partition, up to its hash tag.
local function partition_of(key)
  return string.match(key, '^[^}]*}:')
end

local function job_key(any_key, id)
  return partition_of(any_key) .. 'job:' .. stem(id, { 'steps', 'trace' })
end

local function session_key(any_key, id)
  return partition_of(any_key) .. 'session:' .. stem(id, { 'log', 'waiting', 'results', 'memory', 'archive', 'originals' })
end
