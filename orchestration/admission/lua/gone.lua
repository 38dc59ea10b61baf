-- Woken calls whose step does not wait any more (its job was cancelled): what is promised to them is free again.
-- ARGV: calls
-- Output: how many
local now = clock()
local c, s = load()
if not c or not s then return 0 end
refill(c, s, now)
local n = 0
for _, id in ipairs(ARGV) do
  local rec = record(id)
  if rec and rec.s == 'k' then
    promise(s, need_of(rec), -1)
    drop_record(id)
    n = n + 1
  end
end
if n > 0 then
  if s.nq > 0 then schedule(s, now, 0) end
  save(s)
end
return n
