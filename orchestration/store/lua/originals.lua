-- Shared by the scripts that keep originals: archived groups and whole results of a session, the oldest of which leave when
-- there are too many bytes of them. It declares functions only.

-- Keep one. `place` is 'archive' or 'results'. A name that is kept already gets the new body.
local function keep_original(session, place, name, body)
  local key = session .. ':' .. place
  local before = redis.call('HSTRLEN', key, name)
  redis.call('HSET', key, name, body)
  if before == 0 then redis.call('RPUSH', session .. ':originals', place .. '|' .. name) end
  redis.call('HINCRBY', session, 'originals', #body - before)
end

-- Delete the oldest until at most `most` bytes are kept. The newest stays, however large it is.
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

-- They live at least as long as their session, which a dead letter may hold for months, and never shorter than before.
local function keep_as_long(session, kept_s, parts)
  local left_s = math.max(tonumber(kept_s), redis.call('TTL', session))
  for _, part in ipairs(parts) do
    redis.call('EXPIRE', session .. ':' .. part, left_s, 'NX')
    redis.call('EXPIRE', session .. ':' .. part, left_s, 'GT')
  end
end
