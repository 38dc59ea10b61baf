-- Members of a lineage: what each job has used of the limits that bind it. A job's limits bind the job and its descendants.
-- Two more fields of LINEAGE for each job that has a parent or children, in MessagePack (see ../legend.py):
--   j:<job>   what the job itself has used, and its limits
--   s:<job>   what the job and all its descendants have used
--
-- An ancestry arrives as JSON. It is the state of one job, by its record, and the chain of jobs whose limits bind it:
--   {"turn": n, "fence": n, "calls": n, "children": n, "chain": [{"id": job, "l": limits}]}
-- calls and children are those of earlier turns. The chain begins with the job, then its parent, and so on up to the root. "l"
-- has the stored names of legend.BOUNDS, and is absent if the limits are not known.
-- What a job has used is stored as a sum, not added up from differences. So a repeated request changes nothing, and a repeated
-- turn replaces what its first run reserved.

local function size(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

local function copy(map)
  local made = {}
  for key, value in pairs(map) do made[key] = value end
  return made
end

local function new_own()
  local own = { steps = 0, calls = 0, children = 0, fence = 0 }
  own.tools, own.adopted = {}, {}
  return own
end

local function new_sum()
  local sum = { steps = 0, calls = 0 }
  sum.tools = {}
  return sum
end

-- Read an ancestry. The limits that a job stored itself are newer than those that its descendants or a producer know (a producer
-- has no fence). Those of the asking job are the newest.
local function read_ancestry(text)
  local ancestry, fields = cjson.decode(text), {}
  local chain = ancestry.chain
  for n, job in ipairs(chain) do fields[2 * n - 1], fields[2 * n] = 'j:' .. job.id, 's:' .. job.id end
  local values = redis.call('HMGET', LINEAGE, unpack(fields))
  for n, job in ipairs(chain) do
    local own_raw, sum_raw = values[2 * n - 1], values[2 * n]
    job.own = own_raw and cmsgpack.unpack(own_raw) or new_own()
    job.sum = sum_raw and cmsgpack.unpack(sum_raw) or new_sum()
    if n == 1 and job.l and (ancestry.fence > 0 or not job.own.limits) then job.own.limits = job.l end
    job.bounds = job.own.limits or job.l
    job.suffix = n < #chain and ':' .. job.id or '' -- of its token fields: see lineage.lua
  end
  return ancestry
end

-- Write the use of the first job, and the sums of all.
local function write_ancestry(ancestry, kept_ms)
  local fields = { 'j:' .. ancestry.chain[1].id, cmsgpack.pack(ancestry.chain[1].own) }
  for _, job in ipairs(ancestry.chain) do
    fields[#fields + 1], fields[#fields + 2] = 's:' .. job.id, cmsgpack.pack(job.sum)
  end
  redis.call('HSET', LINEAGE, unpack(fields))
  redis.call('PEXPIRE', LINEAGE, kept_ms)
end

-- Set how many turns and calls the first job has used. The difference counts for all jobs of the chain.
local function set_use(ancestry, steps, calls, tools)
  local own = ancestry.chain[1].own
  for _, job in ipairs(ancestry.chain) do
    local sum = job.sum
    sum.steps, sum.calls = sum.steps + steps - own.steps, sum.calls + calls - own.calls
    for tool, n in pairs(own.tools) do sum.tools[tool] = sum.tools[tool] - n end
    for tool, n in pairs(tools) do sum.tools[tool] = (sum.tools[tool] or 0) + n end
  end
  own.steps, own.calls, own.tools = steps, calls, tools
end

-- The job's calls by tool before this turn. `counted` are those of its record, for a job that is new here.
local function tools_before(own, turn, counted)
  if not own.turn then return counted end
  return own.turn == turn and own.before or own.tools
end

-- The first job of the chain whose limit of steps this turn would exceed. A turn that was counted before is free.
local function find_step_limit(ancestry)
  local more = ancestry.turn - ancestry.chain[1].own.steps
  for _, job in ipairs(more > 0 and ancestry.chain or {}) do
    if job.bounds and job.bounds.steps and job.sum.steps + more > job.bounds.steps then return job end
  end
end

-- Count an admitted turn. What an earlier run of the same turn had reserved for its calls is free again.
local function begin_turn(ancestry, kept_ms)
  local own = ancestry.chain[1].own
  if ancestry.fence >= own.fence then
    own.fence, own.children = ancestry.fence, ancestry.children
    local tools = own.turn == ancestry.turn and own.before or own.tools
    set_use(ancestry, math.max(own.steps, ancestry.turn), ancestry.calls, tools)
  end
  write_ancestry(ancestry, kept_ms)
end

-- The token limits of a job. Those of a root whose limits its descendants don't know may be in lineage.lua.
local function token_limits(job, root_input, root_output)
  local bounds = job.bounds
  if bounds then return bounds.input or 0, bounds.output or 0 end
  return root_input, root_output
end

-- The first job of the chain whose limit of tokens this call would exceed: job, 'input' or 'output', used, limit, and true if live
-- calls may give back enough. Jobs without a token limit are left out; nil if none is reached.
local function find_token_limit(ancestry, input, output)
  for _, job in ipairs(ancestry.chain) do
    local bounds = job.bounds
    if not bounds or bounds.input or bounds.output then
      job.counts_tokens = true
      local reserved_input, reserved_output, used_input, used_output, root_input, root_output = read_tokens(job.suffix)
      local most_input, most_output = token_limits(job, root_input, root_output)
      if most_input > 0 and used_input + input > most_input then return job, 'input', used_input, most_input, false end
      if most_output > 0 and used_output + output > most_output then return job, 'output', used_output, most_output, false end
      if most_input > 0 and used_input + reserved_input + input > most_input then
        return job, 'input', used_input, most_input, true
      end
      if most_output > 0 and used_output + reserved_output + output > most_output then
        return job, 'output', used_output, most_output, true
      end
    end
  end
end

-- Why this turn may not start: a reason and its figures, and true if waiting may help. nil if it may.
local function find_ancestry_limit(ancestry, input, output)
  local job = find_step_limit(ancestry)
  if job then return 'lineage_steps', { job = job.id, used = job.sum.steps, limit = job.bounds.steps }, false end
  local of, what, used, most, may_wait = find_token_limit(ancestry, input, output)
  if not of then return nil end
  local need = what == 'input' and input or output
  return 'lineage_' .. what .. '_tokens', { job = of.id, used = used, need = need, limit = most }, may_wait
end

-- Reserve an admitted call's tokens for each job that counts them. Returns their suffixes.
local function reserve_ancestry_tokens(ancestry, input, output)
  local suffixes = {}
  for _, job in ipairs(ancestry.chain) do
    if job.counts_tokens then
      add_tokens(LINEAGE, job.suffix, input, output)
      suffixes[#suffixes + 1] = job.suffix
    end
  end
  return suffixes
end

-- The limit that one more call of `tool` would exceed, as {field, job, most, tool}; or false. `calls` and `children` are the
-- job's own, `tools` its own by tool.
local function find_call_limit(ancestry, tool, is_child, calls, children, tools)
  local own = ancestry.chain[1].own
  for n, job in ipairs(ancestry.chain) do
    local bounds, sum = job.bounds or {}, job.sum
    if not is_child and bounds.calls and sum.calls - own.calls + calls + 1 > bounds.calls then
      return { 'max_tool_calls', job.id, bounds.calls, '' }
    end
    local most = bounds.tools and bounds.tools[tool]
    if most and (sum.tools[tool] or 0) - (own.tools[tool] or 0) + (tools[tool] or 0) + 1 > most then
      return { 'max_tool_calls', job.id, most, tool }
    end
    if is_child and n == 1 and bounds.children and children + size(own.adopted) + 1 > bounds.children then
      return { 'max_children', job.id, bounds.children, '' }
    end
  end
  return false
end
