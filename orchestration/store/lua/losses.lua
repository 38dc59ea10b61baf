-- Shared by the scripts that record the loss of a claim: its worker died, hung or was suspended.
-- The field `STEP:losses` of STEPS has one line of JSON for each loss of the step (see schemas/loss.py). The last lines count: as
-- many as the row has losses. Only a loss writes it. It is removed with the step.

local function read_losses(step)
  return redis.call('HGET', STEPS, step .. ':losses') or ''
end

-- The line for a claim whose lease has ended. A fence is the time of its claim, so the row shows how long the lease was renewed.
local function describe_loss(row, now, lease_ms)
  local worker = string.match(row.nonce, '^!?(.*)%.%x+%.%d+$') or string.gsub(row.nonce, '^!', '')
  local kept_ms = math.max(0, row.till - tonumber(row.fence) - lease_ms)
  return string.format('{"at_ms":%d,"worker":%s,"kind":"%s","kept_ms":%d}\n', now, cjson.encode(worker),
    kept_ms > 0 and 'lease_ended' or 'not_begun', kept_ms)
end

-- How many of the last losses are without proof. A lease that was never renewed does not count: the work may not have begun.
local function count_unproven(lost_claims, losses)
  local kinds, found = {}, 0
  for kind in string.gmatch(lost_claims, '"kind":"([%a_]+)"') do kinds[#kinds + 1] = kind end
  for n = math.max(1, #kinds - losses + 1), #kinds do
    if kinds[n] == 'lease_ended' or kinds[n] == 'not_started' then found = found + 1 end
  end
  return found
end
