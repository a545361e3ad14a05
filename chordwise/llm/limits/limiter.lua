-- The limits of one endpoint, shared by all its callers. Each run of the script is atomic.
--
-- KEYS: the state; the permits in flight, by expiry; the interactive and the nightly callers that
-- wait, by arrival; all callers that wait, by the time after which they count as gone; the pauses
-- of all endpoints that last until a person acts.
-- ARGV[1]: the values that apply to all questions about this model, as JSON. The other arguments
-- are questions as JSON (`operation` is take or settle), which are answered in order. Times are in
-- seconds, on the server's clock unless a question contains `now`.

local ROUND_SECONDS = 5        -- minimum length of a round, which also needs this many answers
local ROUND_ANSWERS = 32
local GROWTH = 1.05            -- per clean round
local CUT = 0.8                -- of a full window or of the rate, after a refusal
local MEASURED_SHARE = 0.97    -- of the measured rate or window that the provider accepted
local KNOWN_SHARE = 0.98       -- of a known limit, as the provider's minutes differ from ours
local FIRST_GROWTH = 1.15      -- until a refusal confirms a quickly measured rate
local LEAP = 2                 -- growth at a rate so low that a round would take too long
local MAX_CAUTION = 6          -- failed leaps, after which none is made for a while
local CALMING = 0.125          -- reduction of the caution per clean round
local CAUTION_REACH = 4        -- caution does not apply at a rate this many times lower or higher
local COOL_DOWN_SECONDS = 15   -- without growth, after a refusal or a failure
local FIRST_COOL_DOWN_SECONDS = 5
local EPISODE_SECONDS = 1      -- refusals this soon after a cut belong to it; for the same time a
                               -- failure stops the doubling of the window
local EPISODE_ANSWERS = 8
local MEASURING_SECONDS = 10   -- minimum length of a measurement, except while the rate is sought
local MAX_PAUSE_SECONDS = 300
local MAX_BREAK_SECONDS = 60
local NIGHTLY_SHARE = 0.05     -- of all permits, while interactive work waits
local MIN_WAIT_SECONDS = 0.02
local MAX_HINT_SECONDS = 8
local MAX_HINT_AT_FIRST = 3 -- while the window doubles
local EARLY = 0.8              -- callers ask again after this share of the expected wait
local GONE_SECONDS = 5         -- a caller that is late by this much is removed from the queue
local OVERDUE_SECONDS = 0.5    -- a permit is kept for a caller that has waited for longer than this,
local OVERDUE = 4              -- and for this multiple of the usual time, at most MAX_HINT_SECONDS
local KEPT_SECONDS = 86400
local HEAD_START_SECONDS = 2   -- for which others wait, as a denial of a key arrives soon
local HEAD_START_WAIT_SECONDS = 0.1
local MAX_LOOKS = 3            -- after so many slow checks of a pause, callers no longer wait
local KINDS = {'requests', 'tokens', 'input_tokens', 'output_tokens'}
-- The times of a pause, stored as text: cjson cuts numbers to milliseconds, in which many permits
-- are granted.
local MOMENTS = {'began_at', 'asks_again_at', 'looked_at'}

local STATE, FLIGHT, INTERACTIVE, NIGHTLY, ALIVE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local PAUSES = KEYS[6]
local known = cjson.decode(ARGV[1])
local ask  -- the question that is being answered
local time = redis.call('TIME')
local servers_now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now

local state = setmetatable({}, {__index = function() return 0 end})
local entries = redis.call('HGETALL', STATE)
for position = 1, #entries, 2 do
  state[entries[position]] = tonumber(entries[position + 1])
end

local function exactly(number)
  return string.format('%.17g', number)
end

local function begin()
  state.window = known.first_in_flight
  state.slow_start = 1
  state.marked_at = now
  state.round_at = now
end

local is_changed = false

local function save()
  is_changed = true
end

local function store_state()
  local fields = {}
  for name, value in pairs(state) do
    fields[#fields + 1] = name
    fields[#fields + 1] = exactly(value)
  end
  redis.call('HSET', STATE, unpack(fields))
  for _, key in ipairs({STATE, INTERACTIVE, NIGHTLY, ALIVE, FLIGHT}) do
    redis.call('EXPIRE', key, KEPT_SECONDS)
  end
end

-- The limit per minute of a kind: from the settings, else from the provider, else 0.
local function per_minute(kind)
  local configured = ask.configured[kind]
  return configured > 0 and configured or state['limit:' .. kind]
end

local function is_known()
  for _, kind in ipairs(KINDS) do
    if per_minute(kind) > 0 then return true end
  end
  return false
end

local function window()
  if ask.max_in_flight then
    return state.slow_start == 1 and ask.max_in_flight or math.min(state.window, ask.max_in_flight)
  end
  -- With known limits there is nothing to discover: the window is the maximum until a refusal.
  if state.slow_start == 1 and is_known() then return ask.max_window end
  return math.min(state.window, ask.max_window)
end

-- A bucket holds at most the amount of one second, which prevents bursts. `left` estimates the
-- remaining amount at the provider, which has to suffice for a large request.
local function refill()
  local elapsed = math.max(0, now - (state.refilled_at > 0 and state.refilled_at or now))
  state.refilled_at = now
  for _, kind in ipairs(KINDS) do
    local limit = per_minute(kind)
    if limit > 0 then
      if state['known:' .. kind] ~= limit then
        state['known:' .. kind] = limit
        state['bucket:' .. kind] = limit / 60
        state['left:' .. kind] = limit
      end
      local rate = KNOWN_SHARE * limit / 60
      state['bucket:' .. kind] = math.min(math.max(1, rate), state['bucket:' .. kind] + elapsed * rate)
      state['left:' .. kind] = math.min(limit, state['left:' .. kind] + elapsed * rate)
    end
  end
  if state.rate > 0 then
    state.paced = math.min(math.max(1.5, state.rate / 5), state.paced + elapsed * state.rate)
  end
end

-- The number of calls of this size per second that all known limits allow.
local function throughput(cost)
  local found = state.latency > 0 and window() / state.latency or 0
  local function bound(rate)
    if rate > 0 and (found == 0 or rate < found) then found = rate end
  end
  bound(state.rate)
  for _, kind in ipairs(KINDS) do
    bound(KNOWN_SHARE * per_minute(kind) / 60 / math.max(1, cost[kind]))
  end
  return found > 0 and found or 10
end

local function remove_expired()
  redis.call('ZREMRANGEBYSCORE', FLIGHT, '-inf', exactly(now))
  local gone = redis.call('ZRANGEBYSCORE', ALIVE, '-inf', exactly(now), 'LIMIT', 0, 50)
  if #gone > 0 then
    redis.call('ZREM', INTERACTIVE, unpack(gone))
    redis.call('ZREM', NIGHTLY, unpack(gone))
    redis.call('ZREM', ALIVE, unpack(gone))
  end
end

local function lane()
  return ask.priority == 'nightly' and NIGHTLY or INTERACTIVE
end

-- Invalid entries are removed, as no call and no command could end them.
local function read_pause(name, text)
  local is_json, pause = pcall(cjson.decode, text)
  local is_pause = is_json and type(pause) == 'table'
  for _, moment in ipairs(MOMENTS) do
    is_pause = is_pause and tonumber(pause[moment]) ~= nil
    if is_pause then pause[moment] = tonumber(pause[moment]) end
  end
  if is_pause then return pause end
  redis.call('HDEL', PAUSES, name)
end

-- After its time, a pause ends like an open breaker: one call checks whether it is over. If a pause
-- began in the future, the clock was set back; it is then checked at once.
local function each_pause(act)
  for _, name in ipairs(ask.pauses) do
    local text = redis.call('HGET', PAUSES, name)
    local pause = text and read_pause(name, text)
    if pause then
      if pause.began_at > now then pause.asks_again_at = 0 end
      local answer = act(pause, name)
      if answer then return answer end
    end
  end
end

local function keep_pause(pause, name)
  for _, moment in ipairs(MOMENTS) do pause[moment] = exactly(pause[moment]) end
  redis.call('HSET', PAUSES, name, cjson.encode(pause))
  redis.call('EXPIRE', PAUSES, KEPT_SECONDS)
end

-- Record that the granted call checks whether the pauses are over.
local function record_check()
  each_pause(function(pause, name)
    local looks = pause.looks or 0
    if looks < MAX_LOOKS then
      pause.looks = looks + 1
      pause.looked_at = now
      keep_pause(pause, name)
    end
  end)
end

local function is_newer_than(pause)
  return ask.granted_at >= pause.asks_again_at
end

local function hint(seconds)
  local is_doubling = state.slow_start == 1 and not is_known()
  return math.min(is_doubling and MAX_HINT_AT_FIRST or MAX_HINT_SECONDS, seconds)
end

local function wait(seconds, reason)
  seconds = math.max(seconds, MIN_WAIT_SECONDS)
  redis.call('ZADD', lane(), 'NX', exactly(now), ask.waiter)
  redis.call('ZADD', ALIVE, exactly(now + seconds + GONE_SECONDS), ask.waiter)
  save()
  return cjson.encode({granted = false, seconds = seconds, reason = reason})
end

local function leave_the_queue()
  redis.call('ZREM', lane(), ask.waiter)
  redis.call('ZREM', ALIVE, ask.waiter)
end

-- Whether the last permit is kept for the first caller: a process that takes each permit that it
-- returns would otherwise leave none to the other processes.
local function is_overdue(usual_seconds)
  local first = redis.call('ZRANGE', lane(), 0, 0, 'WITHSCORES')
  local max_wait = math.min(OVERDUE * usual_seconds, MAX_HINT_SECONDS)
  local asks_at = tonumber(redis.call('ZSCORE', ALIVE, first[1]) or 0) - GONE_SECONDS
  local is_late = now > asks_at + OVERDUE_SECONDS  -- it may be gone
  return not is_late and now - tonumber(first[2]) > math.max(OVERDUE_SECONDS, max_wait)
end

local function deny_for(pause)
  leave_the_queue()
  return cjson.encode({
    granted = false, denied = {code = pause.code, what = pause.what, hint = pause.hint},
  })
end

-- A call that checks a pause, or is the first one to an address, is made alone for a moment.
local function head_start(since)
  local left = since + HEAD_START_SECONDS - now
  local is_set_back = left > HEAD_START_SECONDS  -- the clock
  if left > 0 and not is_set_back then
    return wait(math.min(HEAD_START_WAIT_SECONDS, left), 'head_start')
  end
end

local function denial_or_head_start()
  local answer = each_pause(function(pause)
    if pause.asks_again_at > now then return deny_for(pause) end
    return head_start(pause.looked_at)
  end)
  if answer then return answer end
  if ask.has_head_start and state.heard == 0 then return head_start(state.began_at) end
end

-- The seconds until the buckets suffice for the call, and whether the discovered rate is a reason.
local function until_affordable(cost, spare)
  local longest = 0
  local function need(level, wanted, rate)
    if level < wanted then longest = math.max(longest, (wanted - level) / rate) end
  end
  if state.rate > 0 then need(state.paced, 1 + spare, state.rate) end
  local is_paced = longest > 0
  for _, kind in ipairs(KINDS) do
    local limit = per_minute(kind)
    if limit > 0 then
      local rate = KNOWN_SHARE * limit / 60
      local extra = kind == 'requests' and spare or 0
      need(state['bucket:' .. kind], math.min(cost[kind] + extra, math.max(1, rate)), rate)
      need(state['left:' .. kind], math.min(cost[kind] + extra, KNOWN_SHARE * limit), rate)
    end
  end
  return longest, is_paced
end

local function grant(cost)
  for _, kind in ipairs(KINDS) do
    if per_minute(kind) > 0 then
      state['bucket:' .. kind] = state['bucket:' .. kind] - cost[kind]
      state['left:' .. kind] = state['left:' .. kind] - cost[kind]
    end
  end
  if state.rate > 0 then state.paced = state.paced - 1 end
  state.accepted = state.accepted + 1
  if ask.priority == 'nightly' then
    state.owed_to_nightly = math.max(0, state.owed_to_nightly - 1)
  else
    state.owed_to_nightly = math.min(1, state.owed_to_nightly + NIGHTLY_SHARE)
  end
  -- A permit lasts a multiple of the usual latency, so that that of a killed caller expires soon.
  local lease = ask.lease_seconds
  if state.latency > 0 then lease = math.min(lease, math.max(15, 8 * state.latency)) end
  if state.openings > 0 then state.probed_until = now + lease end
  redis.call('ZADD', FLIGHT, exactly(now + lease), ask.permit)
  leave_the_queue()
  if state.heard == 0 and state.began_at == 0 then state.began_at = now end
  record_check()
  save()
  return cjson.encode({granted = true, granted_at = exactly(now)})
end

local function take()
  local stopped = denial_or_head_start()
  if stopped then return stopped end
  local cost = ask.cost
  remove_expired()
  refill()
  local in_flight = redis.call('ZCARD', FLIGHT)
  local length = redis.call('ZCARD', lane())
  local rank = redis.call('ZRANK', lane(), ask.waiter) or length
  local spread = rank / throughput(cost)
  if state.open_until > now then
    return wait(state.open_until - now, 'breaker')
  end
  if state.openings > 0 and state.probed_until > now then
    return wait(math.min(1, state.probed_until - now), 'breaker')
  end
  if state.paused_until > now then
    return wait(state.paused_until - now + hint(spread), 'paused')
  end
  -- Interactive work has priority over nightly work, except for the latter's share.
  local nightly = ask.priority == 'nightly'
  local is_owed = state.owed_to_nightly >= 1
  if nightly and not is_owed and redis.call('ZCARD', INTERACTIVE) > 0 then
    return wait(hint(0.5 + spread / NIGHTLY_SHARE), 'priority')
  end
  local spare = (not nightly and is_owed and redis.call('ZCARD', NIGHTLY) > 0) and 1 or 0
  local seconds, is_paced = until_affordable(cost, spare)
  if seconds > 0 then
    if is_paced then state.rate_pressed = 1 end
    return wait(hint(seconds + spread), 'rate')
  end
  local free = window() - in_flight - spare
  local turn = hint(EARLY * (rank + 1) / throughput(cost))
  if free <= 0 then
    state.window_pressed = 1
    return wait(turn, 'in_flight')
  end
  -- Earlier callers go first, approximately: they may be waiting before they ask again.
  local is_last = free < 2 and rank > 0
  if rank > free + 2 + length / 8 or (is_last and is_overdue(length / throughput(cost))) then
    return wait(turn, 'queue')
  end
  return grant(cost)
end

local function begin_round()
  state.round_at = now
  state.round_answers = 0
  state.rate_pressed = 0
  state.window_pressed = 0
end

-- Failed leaps confirm the rate at which they were made, but not a very different one.
local function caution()
  local pace, known = math.max(state.rate, 0.001), math.max(state.caution_at, 0.001)
  local is_near = pace <= CAUTION_REACH * known and known <= CAUTION_REACH * pace
  return is_near and state.caution or 0
end

-- Refusals that the rate did not cause can leave a rate so low that no round is ever complete. A
-- leap therefore needs few answers. Each failed leap doubles the number of answers needed for the
-- next one, or quadruples it if the provider had accepted the earlier rate for long.
local function is_time_to_leap()
  local is_held = state.rate_pressed == 1
    or (state.window_pressed == 1 and state.window < ask.first_in_flight)
  local care = caution()
  if state.leapt > 0 and care > 0 then care = care + 1 end
  return is_held and now - state.round_at >= ROUND_SECONDS
    and state.round_answers >= 2 ^ math.ceil(care) and state.round_answers < ROUND_ANSWERS
end

local function leap()
  state.leapt = state.leapt + 1
  state['window_before:' .. state.leapt] = state.window
  state['rate_before:' .. state.leapt] = state.rate
  if state.window_pressed == 1 then
    state.window = math.min(math.max(state.window, ask.first_in_flight), LEAP * state.window)
  end
  if state.rate_pressed == 1 then state.rate = LEAP * state.rate end
  state.unsure = 1
  begin_round()
end

local function grow(in_flight)
  if now < state.cool_until then return end
  if state.slow_start == 1 then
    -- One more per answer doubles the window in each round, provided that it is nearly full.
    if in_flight + 1 >= CUT * state.window then
      state.window = math.min(state.window + 1, ask.max_window)
    end
    return
  end
  -- A round begins after the cool-down, during which calls are held back deliberately.
  if state.seeking == 1 or state.round_at < state.cool_until then begin_round() end
  state.seeking = 0
  state.round_answers = state.round_answers + 1
  if is_time_to_leap() then return leap() end
  local answers = math.max(state.window, ROUND_ANSWERS)
  if state.round_answers < answers or now - state.round_at < ROUND_SECONDS then return end
  state.caution = math.max(0, state.caution - CALMING)
  state.leapt = 0
  state.clean_rounds = state.clean_rounds + 1
  -- After many clean rounds the limit is distant, so the steps become larger.
  local growth = 1 + (GROWTH - 1) * math.min(4, 2 ^ math.floor(state.clean_rounds / 8))
  if state.unsure == 1 then growth = math.max(growth, FIRST_GROWTH) end
  if state.window_pressed == 1 then
    state.window = math.min(state.window * growth, ask.max_window)
  end
  if state.rate_pressed == 1 then state.rate = state.rate * growth end
  begin_round()
end

local function pause(seconds)
  if seconds and seconds > 0 then
    seconds = math.min(seconds, MAX_PAUSE_SECONDS)
    state.paused_until = math.max(state.paused_until, now + seconds)
    state.cool_until = math.max(state.cool_until, now + seconds + COOL_DOWN_SECONDS)
  end
end

local function cool()
  local seconds = state.unsure == 1 and FIRST_COOL_DOWN_SECONDS or COOL_DOWN_SECONDS
  if state.slow_start == 1 then seconds = EPISODE_SECONDS end
  state.cool_until = math.max(state.cool_until, now + seconds)
  state.clean_rounds = 0
  begin_round()
end

local function cut_window(in_flight, is_sought)
  local width = window()
  if is_sought then
    state.window = math.max(1, CUT * width)
  else
    -- The provider accepts the other calls that were in flight with the refused one.
    state.window = math.max(1, CUT * width, MEASURED_SHARE * math.min(width, in_flight))
  end
end

-- The calls accepted between two refusals measure the rate that the provider allows.
local function cut_rate(is_first)
  local elapsed = math.max(now - state.marked_at, 0.1)
  local measured = math.max(state.accepted, 1) / elapsed
  local rate = 0.9 * state.rate
  if is_first then
    rate = CUT * measured
  elseif state.seeking == 1 or state.doubted == 1 or elapsed >= MEASURING_SECONDS then
    rate = MEASURED_SHARE * measured
  end
  -- If the provider does not accumulate unused calls, the measurement includes slower times and is
  -- too low for a rate that was accepted for a round. If it does accumulate them, the next refusal
  -- follows at once and gives an exact measurement.
  state.doubted = 0
  if rate < CUT * state.rate and state.clean_rounds > 0 then
    rate = CUT * state.rate
    state.doubted = 1
  end
  if state.rate == 0 or rate < state.rate then state.rate = rate end
end

-- Several leaps may have succeeded because the provider had accumulated unused calls. Each further
-- refusal reverts one of them, down to the rate of the last clean round.
local function take_back_a_leap()
  local was_borne = state.accepted >= EPISODE_ANSWERS
  state.window = math.min(state.window, state['window_before:' .. state.leapt])
  state.rate = state['rate_before:' .. state.leapt]
  state.caution = math.min(MAX_CAUTION, caution() + (was_borne and 2 or 1))
  state.caution_at = state.rate
  state.leapt = state.leapt - 1
end

local function cut(in_flight)
  local first = state.slow_start == 1
  local is_sought = first or state.seeking == 1
  -- A small window is always full, which proves nothing. Repeated refusals at the same number of
  -- calls in flight show that the provider limits concurrent calls.
  local is_full = in_flight + 1 >= 0.9 * window() and (is_sought or window() >= 10)
  local is_same = in_flight >= 10 and math.abs(in_flight - state.crowd) <= 1
  is_full = is_full or (is_same and not is_sought)
  state.crowd = in_flight
  if state.leapt > 0 then
    take_back_a_leap()
  else
    if is_full then cut_window(in_flight, is_sought) end
    if is_sought or not is_full then
      cut_rate(first)
    else
      state.doubted = 1  -- if the rate was the cause, the next refusal follows at once
    end
  end
  if not is_full then
    state.window = math.min(window(), math.max(4, 1.25 * in_flight + 2))
  end
  state.paced = -0.3 * state.rate  -- calls in flight may still be refused
  state.seeking = first and 1 or 0
  state.unsure = is_sought and 1 or 0
  state.slow_start = 0
  state.marked_at = now
  state.accepted = 0
  cool()
end

local function limited(in_flight)
  state.refusals = state.refusals + 1
  state.accepted = math.max(0, state.accepted - 1)
  pause(ask.retry_after_seconds)
  if state.slow_start == 1 then return cut(in_flight) end
  local elapsed = now - state.marked_at
  local is_new = ask.granted_at >= state.marked_at and elapsed >= EPISODE_SECONDS
  local is_telling = state.accepted >= EPISODE_ANSWERS or elapsed >= 4 * EPISODE_SECONDS
  if is_new and (is_telling or state.leapt > 0) then cut(in_flight) end
end

-- Before the first answer of an endpoint, a refused call was made alone. The refusal says when to
-- ask again, but nothing about the rate. The next call is made alone as well.
local function is_refused_alone(in_flight)
  return ask.has_head_start and state.heard == 0 and in_flight == 0 and ask.outcome == 'limited'
end

local function ask_alone_again()
  local seconds = math.max(ask.retry_after_seconds, EPISODE_SECONDS)
  state.refusals = state.refusals + 1
  state.began_at = 0
  pause(seconds)
  state.marked_at = now + math.min(seconds, MAX_PAUSE_SECONDS)
  state.accepted = 0
end

-- Server errors and timeouts stop the growth; too many in a row open the breaker.
local function failed()
  pause(ask.retry_after_seconds)
  cool()
  state.failures = state.failures + 1
  local is_probe = state.openings > 0
  if not is_probe and state.failures < ask.breaker_failures then return end
  if is_probe and ask.granted_at < state.open_until then return end  -- sent before it opened
  local seconds = ask.breaker_seconds * 2 ^ state.openings
  state.open_until = now + math.min(seconds, MAX_BREAK_SECONDS)
  state.openings = math.min(state.openings + 1, 16)
  state.probed_until = 0
end

local function close_breaker()
  state.failures = 0
  -- The answer to a call that was sent before the breaker opened does not close it.
  if state.openings > 0 and ask.granted_at >= state.open_until then
    state.openings = 0
    state.open_until = 0
  end
end

local function learn()
  for kind, limit in pairs(ask.limits) do
    if limit > 0 then state['limit:' .. kind] = limit end
  end
  refill()
  for _, kind in ipairs(KINDS) do
    if per_minute(kind) > 0 then
      local refund = ask.refund[kind] or 0
      state['bucket:' .. kind] = state['bucket:' .. kind] + refund
      local left = math.min(per_minute(kind), state['left:' .. kind] + refund)
      state['left:' .. kind] = math.min(left, ask.left[kind] or left)
    end
  end
end

local function end_pauses()
  each_pause(function(pause, name)
    if is_newer_than(pause) then redis.call('HDEL', PAUSES, name) end
  end)
end

-- Delete the pauses of keys that are no longer used.
local function forget_old_pauses()
  local entries = redis.call('HGETALL', PAUSES)
  for position = 1, #entries, 2 do
    local pause = read_pause(entries[position], entries[position + 1])
    if pause and pause.asks_again_at < now - KEPT_SECONDS then
      redis.call('HDEL', PAUSES, entries[position])
    end
  end
end

-- A denial of a call from before the pause began, or before it was resumed, does not count.
local function deny()
  if type(ask.denial) ~= 'table' then return end  -- it is null
  local is_known_already = each_pause(function(pause)
    if not is_newer_than(pause) then return true end
  end)
  if is_known_already then return end
  end_pauses()
  forget_old_pauses()
  local pause = ask.denial
  pause.began_at = now
  pause.asks_again_at = now + ask.pause_seconds
  pause.looked_at, pause.looks = 0, 0
  keep_pause(pause, pause.name)
end

-- After an inconclusive check, the next call checks again.
local function check_again()
  each_pause(function(pause, name)
    if is_newer_than(pause) then
      pause.looked_at, pause.looks = 0, 0
      keep_pause(pause, name)
    end
  end)
end

local function settle()
  local held = redis.call('ZREM', FLIGHT, ask.permit)
  local in_flight = redis.call('ZCARD', FLIGHT)
  learn()
  if is_refused_alone(in_flight) then
    close_breaker()
    ask_alone_again()
    save()
    return cjson.encode({settled = true})
  end
  if ask.outcome ~= 'unsent' then state.heard = 1 end
  if ask.outcome == 'unsent' then
    if held == 1 then state.accepted = math.max(0, state.accepted - 1) end
    if ask.granted_at >= state.open_until then state.probed_until = 0 end
    if state.heard == 0 then state.began_at = 0 end
    check_again()
  elseif ask.outcome == 'limited' then
    close_breaker()
    limited(in_flight)
    check_again()
  elseif ask.outcome == 'failed' then
    failed()
    check_again()
  elseif ask.outcome == 'denied' then
    close_breaker()
    deny()
  else
    close_breaker()
    end_pauses()
    if ask.latency_seconds > 0 then
      local before = state.latency > 0 and state.latency or ask.latency_seconds
      state.latency = 0.9 * before + 0.1 * ask.latency_seconds
    end
    grow(in_flight)
  end
  save()
  return cjson.encode({settled = true})
end

local answers = {}
for position = 2, #ARGV do
  ask = setmetatable(cjson.decode(ARGV[position]), {__index = known})
  now = ask.now or servers_now
  if state.window == 0 then begin() end
  answers[#answers + 1] = ask.operation == 'take' and take() or settle()
end
if is_changed then store_state() end
return answers
