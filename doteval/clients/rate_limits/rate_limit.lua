-- One step of a rate limit: `RateLimit.step` of rate_limit.py, with token_bucket.py and fair_shares.py, which say why.
-- Names and order are the same as there.
-- KEYS: the rate limit. ARGV: the message as JSON, the time for tests ("" for Redis's clock), seconds to keep the state.
local message = cjson.decode(ARGV[1])
local now
if ARGV[2] == '' then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
else
    now = tonumber(ARGV[2])
end

local function new_bucket()
    return {rate = 0, size = 0, level = 0, sent = 0, reported = false, user_rate = 0}
end

local packed = redis.call('GET', KEYS[1])
local self = packed and cmsgpack.unpack(packed) or {
    requests = new_bucket(), tokens = new_bucket(), at = 0, blocked_until = 0, cut_stamp = 0, cut_at = 0, ceiling = 0, careful = false,
    window_at = 0, window_count = 0, accepted = 0, scarce = false, shares = {},
}

local function speed(b)
    if b.rate > 0 and b.user_rate > 0 then return math.min(b.rate, b.user_rate) end
    return math.max(b.rate, b.user_rate)
end

local function capacity(b)
    local room = b.rate > 0 and b.size or speed(b)
    if b.user_rate > 0 then room = math.min(room, speed(b)) end
    return math.max(1, room)
end

local function reserve(b)
    if not b.reported then return 0 end
    local room = capacity(b)
    return math.max(0, math.min(0.2 * room, room - 1, 0.5 * speed(b)))
end

local function set_user_rate(b, rate)
    if rate ~= b.user_rate then
        local fresh = b.user_rate == 0 and b.rate == 0
        b.user_rate = rate
        if fresh then b.level = capacity(b) end
    end
end

local function refill(b, seconds)
    b.level = math.min(capacity(b), b.level + speed(b) * seconds)
end

local function update_from_headers(b, limit, remaining, reset, stamp, age)
    local used = limit - remaining
    if reset > 0 and used >= math.max(2, 0.05 * limit) then
        local rate = (used - 0.5) / reset
        if not b.reported then
            b.level = 0
            b.rate = rate
        else
            b.rate = b.rate + 0.2 * (rate - b.rate)
        end
        b.reported = true
    end
    if not b.reported then return end
    b.size = limit
    if stamp < 0 then return end
    local guess = math.min(capacity(b), remaining - (b.sent - stamp) + speed(b) * age)
    b.level = b.level + (guess < b.level and 1 or 0.2) * (guess - b.level)
end

local function grow(passed)
    local b = self.requests
    if b.rate <= 0 or b.reported or not self.scarce then return end
    if not self.careful then
        b.rate = b.rate * 2 ^ math.min(passed, 1)
    elseif b.rate < 0.9 * self.ceiling then
        b.rate = math.min(0.9 * self.ceiling, b.rate * 1.2 ^ math.min(passed, 1))
    else
        local period = math.min(60, math.max(5, 300 / b.rate))
        local rounds = math.floor((self.at - self.cut_at) / period)
        b.rate = b.rate * (1 + math.min(0.5 * passed, 0.02 * 2 ^ math.min(rounds, 10) * passed / period))
    end
    b.size = math.max(1, 0.25 * b.rate)
end

local function reject(wait, stamp, reported)
    local b = self.requests
    local fresh = b.rate <= 0 or (stamp > self.cut_stamp and now - self.cut_at >= 1)
    if fresh and reported == 0 and not b.reported then
        if b.rate <= 0 then
            b.rate = math.max(1, self.accepted, self.window_count, 0.5 * b.sent)
            b.level = 0
        else
            local known = self.accepted > 0 and math.min(b.rate, self.accepted) or b.rate
            local rate = math.max(0.1, 0.98 * known, 0.7 * b.rate)
            self.ceiling = 0.5 * (b.rate + rate)
            b.rate = rate
            self.careful = true
        end
        b.size = math.max(1, 0.25 * b.rate)
    end
    if fresh then
        b.level = math.min(b.level, 0)
        self.cut_stamp = b.sent
        self.cut_at = now
    end
    if wait > 0 then self.blocked_until = math.max(self.blocked_until, now + math.min(wait, 120)) end
end

local function observe()
    self.window_count = self.window_count + (message.ok or 0)
    local span = now - self.window_at
    if span >= 1 then
        self.accepted = self.window_count / span
        self.window_at = now
        self.window_count = 0
    end
    self.tokens.level = self.tokens.level - (message.tokens or 0)
    if message.left then update_from_headers(self.requests, unpack(message.left)) end
    if message.tokens_left then update_from_headers(self.tokens, unpack(message.tokens_left)) end
    if message.rejected then reject(unpack(message.rejected)) end
end

local function least_waiting_time(name)
    local least
    for other, share in pairs(self.shares) do
        if other ~= name and share.waits_until > now and (not least or share.virtual_time < least) then least = share.virtual_time end
    end
    return least
end

local function share_of(name)
    local share = self.shares[name]
    if not share then
        share = {virtual_time = 0, waits_until = 0, last_asked = 0}
        self.shares[name] = share
    end
    if share.waits_until <= now then share.virtual_time = math.max(share.virtual_time, least_waiting_time(name) or share.virtual_time) end
    share.last_asked = now
    return share
end

local function take(name, share, wanted, tokens_each)
    if self.blocked_until > now then return 0, self.blocked_until - now end
    local granted, pause = wanted, 0
    local per_second, tokens_per_second = speed(self.requests), speed(self.tokens)
    if per_second > 0 then
        local free = self.requests.level - reserve(self.requests)
        granted = math.min(granted, math.max(0, math.floor(free)))
        if granted < wanted then
            local short = math.max(1 - free + granted, math.min(wanted - granted, 0.05 * per_second))
            pause = math.max(pause, short / per_second)
        end
    end
    if tokens_per_second > 0 then
        local free = self.tokens.level - reserve(self.tokens)
        local fits = free > 0 and math.ceil(free / math.max(1, tokens_each)) or 0
        if fits < granted then
            granted = fits
            pause = math.max(pause, (free <= 0 and tokens_each - free or tokens_each) / tokens_per_second)
        end
    end
    if per_second > 0 or tokens_per_second > 0 then
        local least = least_waiting_time(name)
        if least then
            local ahead = math.floor(least + math.max(1, 0.05 * per_second) - share.virtual_time)
            if ahead < granted then
                granted = math.max(0, ahead)
                pause = math.max(pause, 0.02)
            end
        end
    end
    self.requests.level = self.requests.level - granted
    self.requests.sent = self.requests.sent + granted
    self.tokens.level = self.tokens.level - granted * tokens_each
    self.tokens.sent = self.tokens.sent + granted * tokens_each
    return granted, math.min(5, math.max(0.005, pause))
end

if self.at == 0 then
    self.at = now
    self.window_at = now
end
local passed = math.max(0, now - self.at)
self.at = math.max(now, self.at)
now = self.at
set_user_rate(self.requests, message.user_rates[1])
set_user_rate(self.tokens, message.user_rates[2])
grow(passed)
refill(self.requests, passed)
refill(self.tokens, passed)
observe()

local limited = speed(self.requests) > 0 or speed(self.tokens) > 0 or self.blocked_until > now
local answer = {tostring(limited and 1 or 0)}
local grants, wait = {}, 0
for number, ask in ipairs(message.asks) do
    local name, wanted, needed = ask[1], ask[2], ask[3]
    local share = share_of(name)
    local granted, pause = take(name, share, wanted, needed / math.max(1, wanted))
    grants[number] = granted
    share.virtual_time = share.virtual_time + granted
    share.waits_until = granted < wanted and now + 2 * pause + 0.2 or 0
    if granted < wanted then wait = wait > 0 and math.min(wait, pause) or pause end
end
if #message.asks > 0 then self.scarce = wait > 0 end
for name, share in pairs(self.shares) do
    if now - share.last_asked >= 60 then self.shares[name] = nil end
end
redis.call('SET', KEYS[1], cmsgpack.pack(self), 'EX', ARGV[3])

-- As text: Redis truncates numbers to integers.
local function exactly(number) return string.format('%.9f', number) end
answer[2], answer[3], answer[4] = exactly(wait), exactly(self.requests.sent), exactly(self.tokens.sent)
for number, granted in ipairs(grants) do answer[4 + number] = exactly(granted) end
return answer
