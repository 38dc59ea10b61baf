-- Set a downstream's limits. The newest version wins; an older one changes nothing.
-- ARGV:
--   configuration    JSON, with name and version; version null = now, for an operator's change
--   only_if_absent   0 or 1
-- Output: 1 set | 0 there is a newer one
local configuration, only_if_absent = unpack(ARGV)

local config = cjson.decode(configuration)
local now = clock()
if type(config.version) ~= 'number' then config.version = math.floor(now / MS) end
local before, state = load()
if before and (only_if_absent == '1' or before.version > config.version) then return 0 end
-- The weights are read only when a call joins a line, so they are stored apart.
local weights = { priorities = config.priorities, tenants = config.tenants }
config.priorities, config.tenants, config.as_set = nil, nil, nil
save_config(config, weights, configuration)
if not redis.call('ZSCORE', INDEX, config.name) then redis.call('ZADD', INDEX, math.floor(now / MS), config.name) end
if state then
  refill(config, state, now)
  for _, resource in ipairs(RESOURCES) do
    local per_minute = limit(config, state, resource)
    -- Use from the time without a limit is no debt.
    if per_minute > 0 and limit(before, state, resource) == 0 then state.level[resource] = 0 end
    if per_minute > 0 then state.level[resource] = math.min(state.level[resource], depth(config, state, resource)) end
  end
  schedule(state, now, 0) -- with a higher limit, waiting calls may start
  save(state)
end
return 1
