-- Reserve the tool calls and children of one turn in its lineage. A repeated turn replaces its earlier reservation.
-- KEYS:
--   lineage
-- ARGV:
--   ancestry         JSON, see members.lua
--   calls            JSON, a list of [tool, 1 if it starts a child else 0]; empty: give back what the turn had reserved
--   counted          JSON {tool: calls of earlier turns}, for a job that the record does not know
--   kept_ms          time to live of the lineage's record
-- Output: 'lost': a later claim of the job has reserved | JSON, a list: false for a reserved call, or the limit that it would
--         exceed, as [field, job, most, tool]
local ancestry, calls, counted, kept_ms = unpack(ARGV)
LINEAGE = KEYS[1]
ancestry, calls, counted = read_ancestry(ancestry), cjson.decode(calls), cjson.decode(counted)
local own = ancestry.chain[1].own
if own.fence > ancestry.fence then return 'lost' end
local before = tools_before(own, ancestry.turn, counted)
local n_calls, n_children, tools, answers = ancestry.calls, ancestry.children, copy(before), {}
for n, call in ipairs(calls) do
  local tool, is_child = call[1], call[2] == 1
  answers[n] = find_call_limit(ancestry, tool, is_child, n_calls, n_children, tools)
  if not answers[n] then
    if is_child then n_children = n_children + 1 else n_calls = n_calls + 1 end
    tools[tool] = (tools[tool] or 0) + 1
  end
end
own.fence, own.turn, own.before, own.children = ancestry.fence, ancestry.turn, before, n_children
set_use(ancestry, #calls > 0 and math.max(own.steps, ancestry.turn) or own.steps, n_calls, tools)
write_ancestry(ancestry, number('kept_ms', kept_ms))
return #answers > 0 and cjson.encode(answers) or '[]'
