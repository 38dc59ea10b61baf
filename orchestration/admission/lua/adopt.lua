-- Count a child that a producer enqueues. A repeated request for the same child changes nothing.
-- KEYS:
--   lineage
-- ARGV:
--   ancestry           JSON, see members.lua: of the parent
--   child              the child's id
--   is_added           1: count it; 0: it was not enqueued, so forget it
--   most_if_unknown    the parent's limit of children, if it is not known
--   kept_ms            time to live of the lineage's record
-- Output: -1 counted | the limit of children, which it would exceed
local ancestry, child, is_added, most_if_unknown, kept_ms = unpack(ARGV)
LINEAGE = KEYS[1]
ancestry = read_ancestry(ancestry)
local parent = ancestry.chain[1]
local own, bounds = parent.own, parent.bounds or {}
local most = bounds.children or number('most_if_unknown', most_if_unknown)
local children = math.max(own.children, ancestry.children) + size(own.adopted)
if is_added == '1' and not own.adopted[child] and children + 1 > most then return most end
own.adopted[child] = is_added == '1' and 1 or nil
if not own.turn and own.fence == 0 then -- the record did not know the parent: what it used so far counts from now on
  own.children = math.max(own.children, ancestry.children)
  set_use(ancestry, math.max(own.steps, ancestry.turn), math.max(own.calls, ancestry.calls), own.tools)
end
write_ancestry(ancestry, number('kept_ms', kept_ms))
return -1
