"""What is sent to Redis. No I/O.

Layout, shared with Dapr: a string per lock, whose value is the owner and which expires by itself. Besides
there is one counter for all fencing tokens of the database. It begins at the server's clock in microseconds,
so that tokens go on rising after the counter was lost: nobody takes a million locks a second.
"""

from __future__ import annotations

from meshnode_redis._script import Arguments, script

__all__ = ["COUNTER", "REPLICATION", "try_lock", "unlock"]

COUNTER = "meshnode||fencing-token"
"""No lock has this name: theirs begin with `lock||`."""

REPLICATION: Arguments = ("INFO", "replication")

_TRY_LOCK = script("""
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return false end
if redis.call('EXISTS', KEYS[2]) == 0 then
  local now = redis.call('TIME')
  redis.call('SET', KEYS[2], now[1] .. string.format('%06d', now[2]))
end
return redis.call('INCR', KEYS[2])
""")

_UNLOCK = script("""
local owner = redis.call('GET', KEYS[1])
if not owner then return 1 end
if owner ~= ARGV[1] then return 2 end
redis.call('DEL', KEYS[1])
return 0
""")
"""The answers are `UnlockOutcome`'s numbers."""


def try_lock(resource: str, owner: str, seconds: int) -> Arguments:
    return ("EVALSHA", _TRY_LOCK, 2, resource, COUNTER, owner, seconds)


def unlock(resource: str, owner: str) -> Arguments:
    return ("EVALSHA", _UNLOCK, 1, resource, owner)
