-- Corrects what was taken. The last argument is when that was: a refund stays in its own period.

local now = clock()
local taken_at = tonumber(ARGV[#ARGV])
for place = 1, #KEYS do
  local b = bucket(place)
  if b.kind == 'slots' then
    redis.call('ZREM', b.key, ARGV[2])
  else
    local over = b.kind == 'quota' and taken_at < period(b, now)
    if b.cost > 0 or not over then
      write(b, math.max(0, held(b, now) + b.cost), now)
    end
  end
end
return 1
