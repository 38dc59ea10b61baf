-- Set a downstream's limits. The newest version wins; an older one changes nothing.
-- ARGV: 1 configuration as JSON, with name and version ('' = now: an operator's)  2 only if there is none 0|1
-- Output: 1 set | 0 there is a newer one
local n = cjson.decode(ARGV[1])
local now = clock()
if type(n.version) ~= 'number' then n.version = math.floor(now / MS) end
local old, s = load()
if old and (ARGV[2] == '1' or old.version > n.version) then return 0 end
local weights = { priorities = n.priorities, tenants = n.tenants }
n.priorities, n.tenants, n.said = nil, nil, nil -- read only where a call joins a line
redis.call('HSET', STATE, 'cfg', cmsgpack.pack(n), 'weights', cmsgpack.pack(weights), 'json', ARGV[1])
if not redis.call('ZSCORE', INDEX, n.name) then redis.call('ZADD', INDEX, math.floor(now / MS), n.name) end
if s then
  refill(n, s, now)
  for _, r in ipairs(RESOURCES) do
    local l = limit(n, s, r)
    if l > 0 and limit(old, s, r) == 0 then s.lv[r] = 0 end -- what was taken while it had no limit is no debt
    if l > 0 then s.lv[r] = math.min(s.lv[r], depth(n, s, r)) end
  end
  schedule(s, now, 0) -- a higher limit may let somebody in
  save(s)
end
return 1
