-- Count a child that a producer enqueues. A repeated request for the same child changes nothing.
-- KEYS:
--   lineage
-- ARGV:
--   family      JSON, see members.lua: of the parent
--   child       the child's id
--   is_added    1: count it; 0: it was not enqueued, so forget it
--   kept_ms     time to live of the lineage's record
-- Output: -1 counted | the limit of children, which it would exceed
local family, child, is_added, kept_ms = unpack(ARGV)
LINEAGE = KEYS[1]
family = read_family(family)
local parent = family.chain[1]
local own, bounds = parent.own, parent.bounds or {}
local is_new = is_added == '1' and not own.adopted[child]
if is_new and bounds.children and own.children + size(own.adopted) + 1 > bounds.children then return bounds.children end
own.adopted[child] = is_added == '1' and 1 or nil
if not own.turn and own.fence == 0 then -- the record did not know the parent: what it used so far counts from now on
  own.children = math.max(own.children, family.children)
  set_use(family, math.max(own.steps, family.turn), math.max(own.calls, family.calls), own.tools)
end
write_family(family, number('kept_ms', kept_ms))
return -1
