-- Arguments by name, for scripts that take lists. Single values come first, then the lists, as the contract says. So no script
-- counts positions in ARGV, and one more item shifts no other argument.
-- No list becomes a table: the items are read where they lie in ARGV.

local taken = 0

-- The next `count` single values.
local function take(count)
  taken = taken + count
  return unpack(ARGV, taken - count + 1, taken)
end

-- The next list, whose items are single values, or rows of `width` fields. ARGV holds its length, then its items. The functions
-- below take what this one returns: the position of the length.
local function take_list(width)
  local list = taken + 1
  taken = list + ARGV[list] * (width or 1)
  return list
end

-- How many items a list has.
local function length(list)
  return tonumber(ARGV[list])
end

-- All items of a list of single values. At most a few thousand: they go through Lua's stack.
local function items(list)
  return unpack(ARGV, list + 1, list + ARGV[list])
end

-- Iterate over a list: `for step, member in rows_of(results, 2)`. `width` is the one that the list was taken with.
local function rows_of(list, width)
  local last = list + ARGV[list] * width
  local at = list - width + 1
  return function()
    at = at + width
    if at <= last then return unpack(ARGV, at, at + width - 1) end
  end
end
