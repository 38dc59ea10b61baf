-- Shared by the scripts that notice lost records. A server that ran out of memory, crashed without its file or failed
-- over may have lost any single key.
--
-- Fields of SESSION by which a loss is noticed:
--   entries         number of entries that the log should have
--   entries_epoch   epoch of the log that was counted. A worker of an earlier release compacts without counting: then `entries`
--                   says nothing, and the next claim counts again
--   has_memory      the session has a memory

-- The call rows and the model row of the job's turn.
local function count_rows()
  local calls, turns = 0, 0
  for _, field in ipairs(redis.call('HKEYS', STEPS)) do
    if string.match(field, '^%d+%.%d+$') then calls = calls + 1
    elseif string.match(field, '^%d+$') then turns = turns + 1 end
  end
  return calls, turns
end

-- Is a row missing? A job under way has one row for each open call, or the row of its model turn.
local function has_lost_rows(status, open)
  if status ~= 'running' and status ~= 'parked' then return false end
  local calls, turns = count_rows()
  open = tonumber(open or '0')
  if open > 0 then return calls < open end
  return calls + turns == 0
end

-- What the session has lost of its conversation: 'log' or 'memory'. nil: nothing.
local function find_lost_text(epoch, began)
  local entries, of_epoch, has_memory = unpack(redis.call('HMGET', SESSION, 'entries', 'entries_epoch', 'has_memory'))
  local length = redis.call('LLEN', LOG)
  if length == 0 and began then return 'log' end
  if entries and of_epoch == (epoch or '0') and length < tonumber(entries) then return 'log' end
  if has_memory and redis.call('EXISTS', SESSION .. ':memory') == 0 then return 'memory' end
end

-- Count the log's entries if a worker that does not count has compacted it.
local function count_entries(epoch)
  if redis.call('HGET', SESSION, 'entries_epoch') ~= (epoch or '0') then
    redis.call('HSET', SESSION, 'entries', redis.call('LLEN', LOG), 'entries_epoch', epoch or '0')
  end
end

-- Write the session's record again after it was lost, from its other keys. Its numbers of compactions and bytes begin at zero.
-- The epoch is new, so that no worker takes its copy of the log for this one.
local function restore_session(job, now)
  local last = redis.call('LINDEX', LOG, -1)
  local groups = last and cjson.decode(last).group or 0
  redis.call('HSET', SESSION, 'active', job, 'groups', groups)
  local has_memory = redis.call('EXISTS', SESSION .. ':memory') == 1
  if has_memory then redis.call('HSET', SESSION, 'has_memory', '1') end
  if has_memory or redis.call('EXISTS', SESSION .. ':archive') == 1 then
    redis.call('HSET', SESSION, 'epoch', string.format('%d', now))
  end
  if redis.call('EXISTS', SESSION .. ':results') == 1 then redis.call('HSET', SESSION, 'flags', 'results') end
  redis.call('EXPIRE', SESSION, KEPT_S)
  redis.pcall('HINCRBY', COUNTERS, 'records.restored', 1)
end
