-- Shared by the scripts that take lists: arguments by name. Single values come first, then the lists, as the contract says.
-- So no script counts positions in ARGV, and one more item shifts no other argument.

local taken = 0

-- The next `count` single values.
local function take(count)
  taken = taken + count
  return unpack(ARGV, taken - count + 1, taken)
end

-- The next list. ARGV holds its length, then its items. With a `width`, an item is a table of that many fields.
local function take_list(width)
  local at, items = taken + 1, {}
  for i = 1, tonumber(ARGV[at]) do
    if width then
      items[i] = { unpack(ARGV, at + 1, at + width) }
      at = at + width
    else
      at = at + 1
      items[i] = ARGV[at]
    end
  end
  taken = at
  return items
end
