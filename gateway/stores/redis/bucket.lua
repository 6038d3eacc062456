-- What the scripts share: the arithmetic of policies/ratelimit.py, on the server's clock.
--
-- KEYS are buckets, all of one hash tag. ARGV begins with the time, or '' for the server's own, and
-- the holder of slots; WIDTH arguments for each bucket follow. A rolling limit and a calendar quota
-- are stored as "amount at", slots as a sorted set of holders by the time at which they come free.

local WIDTH = 12

local function clock()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function bucket(place)
  local function number(field)
    return tonumber(ARGV[2 + (place - 1) * WIDTH + field])
  end
  return {
    key = KEYS[place],
    kind = ARGV[2 + (place - 1) * WIDTH + 1],
    cost = number(2),
    capacity = number(3),
    slack = number(4),
    rate = number(5), -- of slots: their ttl
    starts = {number(6), number(7), number(8), number(9)},
    seed = {amount = number(10), at = number(11), force = number(12) == 1},
  }
end

local function period(b, now)
  local place = 3
  if now < b.starts[2] then
    place = 1
  elseif now < b.starts[3] then
    place = 2
  end
  return b.starts[place], b.starts[place + 1]
end

local function drained(b, amount, at, now)
  if b.kind == 'rate' then
    return math.max(0, amount - math.max(0, now - at) * b.rate)
  end
  local begin = period(b, now)
  return at >= begin and amount or 0
end

-- What the bucket holds. Where the server lost it (a restart, a failover), what the caller last knew counts.
local function held(b, now)
  if b.kind == 'slots' then
    return redis.call('ZCOUNT', b.key, '(' .. string.format('%.17g', now), '+inf')
  end
  local stored = redis.call('GET', b.key)
  local amount = 0
  if stored then
    local was, at = string.match(stored, '^(%S+) (%S+)$')
    amount = drained(b, tonumber(was), tonumber(at), now)
  end
  if b.seed.at > 0 and (not stored or b.seed.force) then
    amount = math.max(amount, drained(b, b.seed.amount, b.seed.at, now))
  end
  return amount
end

-- It is kept for as long as it holds anything: a bucket that isn't there is empty.
local function write(b, amount, now)
  local seconds
  if b.kind == 'rate' then
    seconds = amount / b.rate
  else
    local _, finish = period(b, now)
    seconds = finish - now
  end
  local value = string.format('%.17g %.17g', amount, now)
  redis.call('SET', b.key, value, 'PX', math.ceil(seconds * 1000) + 1000)
end

local function hold(b, holder, now)
  redis.call('ZREMRANGEBYSCORE', b.key, '-inf', string.format('%.17g', now))
  redis.call('ZADD', b.key, string.format('%.17g', now + b.rate), holder)
  local last = redis.call('ZRANGE', b.key, -1, -1, 'WITHSCORES')
  redis.call('PEXPIRE', b.key, math.ceil((tonumber(last[2]) - now) * 1000) + 1000)
end
