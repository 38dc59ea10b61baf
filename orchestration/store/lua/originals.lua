-- Shared by the scripts that keep originals: archived groups and whole results of a session. If they have too many bytes, the
-- oldest are deleted. This file only declares functions.

-- Store one original. `place` is 'archive' or 'results'. An existing original of the same name is replaced.
local function keep_original(session, place, name, body)
  local key = session .. ':' .. place
  local before = redis.call('HSTRLEN', key, name)
  redis.call('HSET', key, name, body)
  if before == 0 then redis.call('RPUSH', session .. ':originals', place .. '|' .. name) end
  redis.call('HINCRBY', session, 'originals', #body - before)
end

-- Delete the oldest originals until at most `most` bytes are left. The newest one always stays.
local function bound_originals(session, most)
  local over = tonumber(redis.call('HGET', session, 'originals') or '0') - most
  while over > 0 and redis.call('LLEN', session .. ':originals') > 1 do
    local place, name = string.match(redis.call('LPOP', session .. ':originals'), '^(%a+)|(.*)$')
    local freed = redis.call('HSTRLEN', session .. ':' .. place, name)
    redis.call('HDEL', session .. ':' .. place, name)
    redis.call('HINCRBY', session, 'originals', -freed)
    over = over - freed
  end
end

-- Extend their time to live to that of the session, which a dead letter may hold for months. It is never made shorter.
local function keep_as_long(session, kept_s, parts)
  local left_s = math.max(tonumber(kept_s), redis.call('TTL', session))
  for _, part in ipairs(parts) do
    redis.call('EXPIRE', session .. ':' .. part, left_s, 'NX')
    redis.call('EXPIRE', session .. ':' .. part, left_s, 'GT')
  end
end
