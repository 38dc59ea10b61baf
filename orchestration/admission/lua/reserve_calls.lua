-- Reserve the tool calls and children of one turn in its lineage. A repeated turn replaces its earlier reservation.
-- KEYS:
--   lineage
-- ARGV:
--   family           JSON, see members.lua
--   calls            JSON, a list of [tool, 1 if it starts a child else 0]; empty: give back what the turn had reserved
--   counted          JSON {tool: calls of earlier turns}, for a job that the record does not know
--   kept_ms          time to live of the lineage's record
-- Output: 'lost': a later claim of the job has reserved | JSON, a list: false for a reserved call, or the limit that it would
--         exceed, as [field, job, most, tool]
local family, calls, counted, kept_ms = unpack(ARGV)
LINEAGE = KEYS[1]
family, calls, counted = read_family(family), cjson.decode(calls), cjson.decode(counted)
local own = family.chain[1].own
if own.fence > family.fence then return 'lost' end
local before = tools_before(own, family.turn, counted)
local n_calls, n_children, tools, answers = family.calls, family.children, copy(before), {}
for n, call in ipairs(calls) do
  local tool, is_child = call[1], call[2] == 1
  answers[n] = find_call_limit(family, tool, is_child, n_calls, n_children, tools)
  if not answers[n] then
    if is_child then n_children = n_children + 1 else n_calls = n_calls + 1 end
    tools[tool] = (tools[tool] or 0) + 1
  end
end
own.fence, own.turn, own.before, own.children = family.fence, family.turn, before, n_children
set_use(family, #calls > 0 and math.max(own.steps, family.turn) or own.steps, n_calls, tools)
write_family(family, number('kept_ms', kept_ms))
return #answers > 0 and cjson.encode(answers) or '[]'
