-- What a lineage (a root job and all jobs that it caused) has used: calls, retries and tokens. KEYS[9], a HASH:
--   n   calls admitted                    ri, ro  input and output tokens reserved by live calls
--   u   retries                           ui, uo  input and output tokens used
--   t   us when it was first counted      bi, bo  input and output tokens that it may use; 0: any number

-- Returns calls, retries, time of the first call, reserved input and output, used input and output, limits of both.
local function read_lineage()
  local v = redis.call('HMGET', LINEAGE, 'n', 'u', 't', 'ri', 'ro', 'ui', 'uo', 'bi', 'bo')
  return tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or nil), tonumber(v[4] or 0), tonumber(v[5] or 0),
    tonumber(v[6] or 0), tonumber(v[7] or 0), tonumber(v[8] or 0), tonumber(v[9] or 0)
end

-- Keep the record for another `kept_ms`.
local function keep_lineage(now, kept_ms)
  redis.call('HSETNX', LINEAGE, 't', string.format('%.0f', now))
  redis.call('PEXPIRE', LINEAGE, kept_ms)
end

local function count_retry() return redis.call('HINCRBY', LINEAGE, 'u', 1) end

local function count_call() return redis.call('HINCRBY', LINEAGE, 'n', 1) end

local function reserve_tokens(input, output, most_input, most_output)
  redis.call('HINCRBYFLOAT', LINEAGE, 'ri', input)
  redis.call('HINCRBYFLOAT', LINEAGE, 'ro', output)
  redis.call('HSET', LINEAGE, 'bi', string.format('%.0f', most_input), 'bo', string.format('%.0f', most_output))
end

-- Replace a call's reserved tokens of its lineage by the tokens that it used.
local function spend_tokens(call, input, output)
  if not call.lineage then return end
  redis.call('HINCRBYFLOAT', call.lineage, 'ri', -call.reserved_input)
  redis.call('HINCRBYFLOAT', call.lineage, 'ro', -call.reserved_output)
  redis.call('HINCRBYFLOAT', call.lineage, 'ui', input)
  redis.call('HINCRBYFLOAT', call.lineage, 'uo', output)
end
