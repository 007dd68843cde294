"""Lua for what must not be torn apart: looking at who has an entry and acting on it. No I/O.

Who has a pending entry is written in its group. Three kinds of consumers:

- our own, one name per subscription: what it is working on, and nothing else;
- the group's own name, under which every daprd reads: what has failed and waits for its time;
- `<group>-returned`: what a subscription had to give back. It is looked at often, so it holds nothing that
  may not be taken at once, and goes when it is empty.

An entry's age, idle time in Redis' words, says whether it may be taken from its consumer. Daprds claim
whatever is older than their processing timeout, whoever has it. So giving back means: to another consumer,
with an age beyond any timeout.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshnode_redis._script import Arguments, script

__all__ = ["give_back", "join", "keep", "put_off", "returned_name", "sweep", "take_returned"]

_ANCIENT = 1_000_000_000
"""Milliseconds: 11 days, more than any processing timeout. (An age beyond the clock's start would be cut.)"""

_PAGE = 200
"""Pending entries that one step of a sweep looks at."""

_JOIN = script("""
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if found.err then return 0 end
for _, flat in ipairs(found) do
  local one = {}
  for i = 1, #flat, 2 do one[flat[i]] = flat[i + 1] end
  local dead = one.idle > tonumber(ARGV[3]) and string.sub(one.name, 1, #ARGV[2]) == ARGV[2]
  if one.pending == 0 and (dead or one.name == ARGV[4]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one.name)
  end
end
return 0
""")
"""Makes the group, from the stream's start as Dapr does, and removes empty consumers that nobody is any
more: those of nodes that were killed. (One that reads is never idle for so long.)
"""

_TIDY = """
local function tidy(name)
  if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, name) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
  end
end
"""

_KEEP = script("""
for i = 3, #ARGV do
  if redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])[1] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
return 0
""")

_PUT_OFF = script("""
if redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[5], ARGV[5], 1, ARGV[2])[1] then
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[5], 'IDLE', ARGV[4], 'JUSTID')
end
return 0
""")

_AFTER = """
local function after(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end
"""
"""Ranges that leave out their start are newer than the servers we want to serve."""

_GIVE_BACK = script(
    _TIDY
    + _AFTER
    + """
local kept = {}
for i = 5, #ARGV do kept[ARGV[i]] = true end
local ids, start, left = {}, '-', 0
repeat
  local page = redis.call('XPENDING', KEYS[1], ARGV[1], start, '+', 100, ARGV[2])
  for _, one in ipairs(page) do
    if kept[one[1]] then left = left + 1 else ids[#ids + 1] = one[1] end
  end
  if #page == 100 then start = after(page[100][1]) end
until #page < 100
for _, id in ipairs(ids) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, id, 'IDLE', ARGV[4], 'JUSTID')
end
if left == 0 then tidy(ARGV[2]) end
return #ids
"""
)

_SWEEP = script(
    _TIDY
    + _AFTER
    + """
local page = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], '+', ARGV[6])
local ids, most, seen, cursor = {}, tonumber(ARGV[5]), nil, ''
for _, one in ipairs(page) do
  if #ids == most then break end
  seen = one[1]
  if one[3] >= tonumber(ARGV[3]) then ids[#ids + 1] = one[1] end
end
if #ids == most or #page == tonumber(ARGV[6]) then cursor = after(seen) end
if #ids == 0 then return { cursor, {}, {} } end
local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], unpack(ids))
tidy(ARGV[7])
return { cursor, ids, claimed }
"""
)
"""XAUTOCLAIM, for servers before 6.2 too, and naming what was deleted, which only those since 7 do."""

_TAKE_RETURNED = script(
    _TIDY
    + """
local found = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[3])
if #found == 0 then return false end
local ids = {}
for i, one in ipairs(found) do ids[i] = one[1] end
local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
tidy(ARGV[3])
return { '', ids, claimed }
"""
)


def returned_name(group: str) -> str:
    return f"{group}-returned"


def join(topic: str, group: str, prefix: str, idle: float) -> Arguments:
    """`prefix` is what our consumers' names begin with; those without a sign of life for `idle` seconds and
    with nothing pending are dead.
    """
    return ("EVALSHA", _JOIN, 1, topic, group, prefix, _milliseconds(idle), returned_name(group))


def keep(topic: str, group: str, consumer: str, ids: Iterable[bytes]) -> Arguments:
    """Makes those entries young again that are still the consumer's."""
    return ("EVALSHA", _KEEP, 1, topic, group, consumer, *ids)


def put_off(topic: str, group: str, consumer: str, age: float, entry: bytes) -> Arguments:
    """An entry that is still the consumer's goes to the group's own name, so many seconds old."""
    return ("EVALSHA", _PUT_OFF, 1, topic, group, consumer, group, _milliseconds(age), entry)


def give_back(topic: str, group: str, consumer: str, kept: Iterable[bytes]) -> Arguments:
    """Everything the consumer has, but for `kept`; it is deleted when nothing is left."""
    returned = returned_name(group)
    return ("EVALSHA", _GIVE_BACK, 1, topic, group, consumer, returned, _ANCIENT, *kept)


def take_returned(topic: str, group: str, consumer: str, most: int) -> Arguments:
    """Answers as `sweep`, or nothing."""
    return ("EVALSHA", _TAKE_RETURNED, 1, topic, group, consumer, returned_name(group), most)


def sweep(topic: str, group: str, consumer: str, age: float, start: bytes, most: int) -> Arguments:
    """Takes what is so many seconds old, from `start` on. Answers where to go on (empty: that was all), the
    ids, and the entries; ids without an entry were deleted.
    """
    who = (topic, group, consumer)
    return ("EVALSHA", _SWEEP, 1, *who, _milliseconds(age), start, most, _PAGE, returned_name(group))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
