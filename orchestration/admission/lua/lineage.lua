-- What a lineage (a root job and all jobs that it caused) has used: calls, retries and tokens. LINEAGE, a HASH:
--   n   calls admitted                    ri, ro  input and output tokens reserved by live calls
--   u   retries                           ui, uo  input and output tokens used
--   t   us when it was first counted      bi, bo  input and output tokens that it may use; 0: any number
--   uu  retries, of them after a failure that does not count against the call's `max_retries`

-- Returns calls, retries, time of the first call, reserved input and output, used input and output, limits of both, and
-- uncounted retries.
local function read_lineage()
  local v = redis.call('HMGET', LINEAGE, 'n', 'u', 't', 'ri', 'ro', 'ui', 'uo', 'bi', 'bo', 'uu')
  return tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or nil), tonumber(v[4] or 0), tonumber(v[5] or 0),
    tonumber(v[6] or 0), tonumber(v[7] or 0), tonumber(v[8] or 0), tonumber(v[9] or 0), tonumber(v[10] or 0)
end

-- Keep the record for another `kept_ms`.
local function keep_lineage(now, kept_ms)
  redis.call('HSETNX', LINEAGE, 't', string.format('%.0f', now))
  redis.call('PEXPIRE', LINEAGE, kept_ms)
end

local function count_retry(is_uncounted)
  if is_uncounted then redis.call('HINCRBY', LINEAGE, 'uu', 1) end
  return redis.call('HINCRBY', LINEAGE, 'u', 1)
end

local function count_call() return redis.call('HINCRBY', LINEAGE, 'n', 1) end

local function add_tokens(key, suffix, reserved_input, reserved_output, used_input, used_output)
  redis.call('HINCRBYFLOAT', key, 'ri' .. suffix, reserved_input)
  redis.call('HINCRBYFLOAT', key, 'ro' .. suffix, reserved_output)
  if used_input then
    redis.call('HINCRBYFLOAT', key, 'ui' .. suffix, used_input)
    redis.call('HINCRBYFLOAT', key, 'uo' .. suffix, used_output)
  end
end

local function reserve_tokens(input, output, most_input, most_output)
  add_tokens(LINEAGE, '', input, output)
  redis.call('HSET', LINEAGE, 'bi', string.format('%.0f', most_input), 'bo', string.format('%.0f', most_output))
end

-- Tokens of one job of the lineage and its descendants: reserved input and output, used input and output, limits of both. The root's
-- fields have the suffix ''. Only the root has limits here: those of other jobs are in members.lua.
local function read_tokens(suffix)
  local v = redis.call('HMGET', LINEAGE, 'ri' .. suffix, 'ro' .. suffix, 'ui' .. suffix, 'uo' .. suffix, 'bi', 'bo')
  local reserved_input, reserved_output = tonumber(v[1] or 0), tonumber(v[2] or 0)
  local used_input, used_output = tonumber(v[3] or 0), tonumber(v[4] or 0)
  if suffix ~= '' then return reserved_input, reserved_output, used_input, used_output, 0, 0 end
  return reserved_input, reserved_output, used_input, used_output, tonumber(v[5] or 0), tonumber(v[6] or 0)
end

-- Replace a call's reserved tokens of its lineage by the tokens that it used, for each job whose limit binds it.
local function spend_tokens(call, input, output)
  if not call.lineage then return end
  for _, suffix in ipairs(call.suffixes or { '' }) do
    add_tokens(call.lineage, suffix, -call.reserved_input, -call.reserved_output, input, output)
  end
end
