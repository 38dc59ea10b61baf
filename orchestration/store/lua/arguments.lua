-- Read arguments in order, for scripts that take lists. Single values come first, then the lists, as in the contract. So no
-- script counts positions in ARGV, and a longer list does not move other arguments.
-- Lists are not copied into tables: their items are read from ARGV.

local taken = 0

-- Take the next `count` single values.
local function take(count)
  taken = taken + count
  return unpack(ARGV, taken - count + 1, taken)
end

-- Take the next list. Its items are single values, or rows of `width` fields. ARGV holds its length, then its items. Returns the
-- position of the length, which is the argument of the functions below.
local function take_list(width)
  local list = taken + 1
  taken = list + ARGV[list] * (width or 1)
  return list
end

-- The number of items of a list.
local function length(list)
  return tonumber(ARGV[list])
end

-- Unpack a list of single values. It must have at most a few thousand items, because Lua's stack holds them all.
local function items(list)
  return unpack(ARGV, list + 1, list + ARGV[list])
end

-- Iterate over a list: `for step, member in rows_of(results, 2)`. `width` must be the width of take_list.
local function rows_of(list, width)
  local last = list + ARGV[list] * width
  local at = list - width + 1
  return function()
    at = at + width
    if at <= last then return unpack(ARGV, at, at + width - 1) end
  end
end
