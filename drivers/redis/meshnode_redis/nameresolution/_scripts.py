"""What is sent to Redis. No I/O.

Layout: a sorted set for each app id of a namespace. A member is a registration, `address||id`, and its score
the time at which it ends, in milliseconds of the server's clock: those of the nodes may differ. The set
itself expires with its last registration.
"""

from __future__ import annotations

from meshnode_redis._script import Arguments, script

__all__ = ["address_of", "key_of", "lookup", "member_of", "register", "unregister"]

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_REGISTER = script(
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last[2]))
return 1
"""
)
"""Makes a registration, or makes it last."""

_LOOKUP = script(
    _NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')"
)


def key_of(app_id: str, namespace: str) -> str:
    return f"meshnode||names||{namespace}||{app_id}"


def member_of(address: str, registration: str) -> str:
    """Of one registration and no other's, even at the same address: each takes out only its own."""
    return f"{address}||{registration}"


def address_of(member: bytes) -> str:
    """Empty for what is no registration."""
    return member.decode(errors="replace").rpartition("||")[0]


def register(key: str, member: str, milliseconds: int) -> Arguments:
    return ("EVALSHA", _REGISTER, 1, key, member, milliseconds)


def unregister(key: str, member: str) -> Arguments:
    return ("ZREM", key, member)


def lookup(key: str) -> Arguments:
    return ("EVALSHA", _LOOKUP, 1, key)
