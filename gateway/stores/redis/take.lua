-- Makes all of the charges, or none and writes nothing. Returns whether, the time, and what each held before.

local now = clock()
local admitted = 1
local buckets, amounts = {}, {}
for place = 1, #KEYS do
  local b = bucket(place)
  local amount = held(b, now)
  buckets[place], amounts[place] = b, amount
  if amount + b.cost - b.capacity > b.slack then
    admitted = 0
  end
end

local answer = {admitted, string.format('%.17g', now)}
for place, b in ipairs(buckets) do
  if admitted == 1 then
    if b.kind == 'slots' then
      hold(b, ARGV[2], now)
    else
      write(b, amounts[place] + b.cost, now)
    end
  end
  answer[place + 2] = string.format('%.17g', amounts[place])
end
return answer
