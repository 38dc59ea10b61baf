-- Set a downstream's limits. The newest version wins; an older one changes nothing.
-- ARGV: 1 configuration as JSON, with name and version ('' = now: an operator's)  2 only if there is none 0|1
-- Output: 1 set | 0 there is a newer one
local n = cjson.decode(ARGV[1])
local now = clock()
if not n.version then n.version = math.floor(now / MS) end
local old, s = load()
if old and (ARGV[2] == '1' or old.version > n.version) then return 0 end
redis.call('HSET', STATE, 'cfg', cmsgpack.pack(n), 'json', ARGV[1])
if not redis.call('ZSCORE', INDEX, n.name) then redis.call('ZADD', INDEX, NEVER, n.name) end
if s then
  refill(n, s, now)
  for _, r in ipairs(RESOURCES) do
    local l = limit(n, s, r)
    if l > 0 then s.lv[r] = math.min(s.lv[r], depth(n, s, r)) end
  end
  schedule(s, now, 0) -- a higher limit may let somebody in
  save(s)
end
return 1
