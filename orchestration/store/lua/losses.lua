-- Shared by the scripts that record the loss of a claim: its worker died, hung or was suspended.
-- The field `STEP:losses` of STEPS has one line of JSON for each loss of the step (see schemas/loss.py). The last lines count: as
-- many as the row has losses. Only a loss writes it. It is removed with the step.

local function read_losses(step)
  return redis.call('HGET', STEPS, step .. ':losses') or ''
end

-- The line for a claim whose lease has ended. A fence is the time of its claim, so the row shows how long the lease was renewed.
local function describe_loss(row, now, lease_ms)
  local worker, alone = string.match(row.nonce, '^!?(.-)(%+?)$')
  worker = string.match(worker, '^(.*)%.%x+%.%d+$') or worker
  local kept_ms = math.max(0, row.till - tonumber(row.fence) - lease_ms)
  return string.format('{"at_ms":%d,"worker":%s,"kind":"%s","kept_ms":%d}\n', now, cjson.encode(worker),
    alone == '+' and 'died_together' or 'lease_ended', kept_ms)
end

-- Count the last losses: those without proof, and those of them in which the step's separate process was lost.
local function count_unproven(lost_claims, losses)
  local kinds, unproven, alone = {}, 0, 0
  for kind in string.gmatch(lost_claims, '"kind":"([%a_]+)"') do kinds[#kinds + 1] = kind end
  for n = math.max(1, #kinds - losses + 1), #kinds do
    if kinds[n] ~= 'died_alone' then unproven = unproven + 1 end
    if kinds[n] == 'died_together' or kinds[n] == 'not_started' then alone = alone + 1 end
  end
  return unproven, alone
end

-- Is this the claim that the row has? A separate process continues its worker's claim, with a `+` behind the nonce.
local function is_own(row, nonce)
  local known = string.gsub(row.nonce, '^!', '')
  return known == nonce or known .. '+' == nonce
end
