"""What is sent to Redis, and what the answers mean. No I/O.

Layout, shared with Dapr: a hash per key with the value in `data`, a counter in `version` (the etag) and,
once it was written with first-write concurrency, the mark `first-write`. What is marked is only
overwritten by those who give its etag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from meshnode.errors import EtagInvalid, EtagMismatch, StateError
from meshnode.interfaces import (
    Concurrency,
    DeleteRequest,
    GetResult,
    SetRequest,
    StateOperation,
)
from meshnode_redis._script import Arguments, script

__all__ = [
    "check_delete",
    "check_etag",
    "check_set",
    "check_transaction",
    "delete",
    "get",
    "get_plain",
    "put",
    "read_hash",
    "transaction",
]

_LOOK = """
local function look(key)
  local found = redis.pcall('HMGET', key, 'version', 'first-write')
  if found.err then return { exists = true, alien = true, version = 0 } end
  if not found[1] then return { exists = false, version = 0 } end
  return { exists = true, version = tonumber(found[1]), etag = found[1], marked = found[2] }
end
local function refused(row, etag, first)
  if etag ~= '' then return row.etag ~= etag and 1 end
  if first ~= '' then return row.exists and 2 end
  return row.marked and 3
end
local function put(key, row, first, ttl, value)
  if row.alien then redis.call('DEL', key) end
  local version = string.format('%.0f', row.version + 1)
  if first ~= '' then redis.call('HSET', key, 'data', value, 'version', version, 'first-write', 0)
  else redis.call('HSET', key, 'data', value, 'version', version) end
  if ttl ~= '' then
    if tonumber(ttl) > 0 then redis.call('EXPIRE', key, ttl) else redis.call('PERSIST', key) end
  end
end
"""
"""`look` tells what is stored: `alien` is a key of another type, which only an unconditional write
replaces. Answers: 0 done,
1 another etag, 2 first write of a key that exists, 3 an etag is needed because the key is marked.
"""

_PUT = (
    _LOOK
    + """
local row = look(KEYS[1])
if not row.version then return redis.error_reply('ERR the version of ' .. KEYS[1] .. ' is no number') end
local no = refused(row, ARGV[1], ARGV[2])
if no then return no end
put(KEYS[1], row, ARGV[2], ARGV[3], ARGV[4])
return 0
"""
)

_DELETE_MATCH = """
local found = redis.pcall('HGET', KEYS[1], 'version')
if found ~= ARGV[1] then return 1 end
redis.call('DEL', KEYS[1])
return 0
"""

_TRANSACT = (
    _LOOK
    + """
local rows, steps = {}, {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local kind, etag, first = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local row = rows[key] or look(key)
  if not row.version then return redis.error_reply('ERR the version of ' .. key .. ' is no number') end
  local no
  if kind == 'S' then no = refused(row, etag, first) else no = etag ~= '' and row.etag ~= etag and 1 end
  if no then return { i, no } end
  steps[i] = row
  if kind == 'S' then
    local version = row.version + 1
    rows[key] = { exists = true, version = version, etag = string.format('%.0f', version),
      marked = row.marked or first ~= '' }
  else
    rows[key] = { exists = false, version = 0 }
  end
end
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  if ARGV[at + 1] == 'S' then put(key, steps[i], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  else redis.call('DEL', key) end
end
return { 0, 0 }
"""
)
"""First every condition, played through in order on a copy, then every write: nothing is written unless
all of it can be.
"""

_PUT_DIGEST, _DELETE_DIGEST, _TRANSACT_DIGEST = map(script, (_PUT, _DELETE_MATCH, _TRANSACT))

_NUMBER = re.compile(r"[+-]?[0-9]+")


def _version(etag: str | None, key: str) -> str:
    if not etag:
        return ""
    if not _NUMBER.fullmatch(etag):
        raise EtagInvalid(f"invalid etag value for key {key}: {etag!r} is no number")
    return str(int(etag))


def check_etag(request: StateOperation) -> None:
    """Raises `EtagInvalid` for an etag that none of our versions can be."""
    if not (isinstance(request, SetRequest) and request.concurrency is Concurrency.LAST_WRITE):
        _version(request.etag, request.key)


def _conditions(request: SetRequest, default_ttl: int | None) -> tuple[str, str, str]:
    """Etag, first-write mark and time to live as the scripts take them.

    `LAST_WRITE` looks at no etag, as in Dapr.
    """
    last_write = request.concurrency is Concurrency.LAST_WRITE
    etag = "" if last_write else _version(request.etag, request.key)
    ttl = default_ttl if request.ttl is None else request.ttl
    return (
        etag,
        "1" if request.concurrency is Concurrency.FIRST_WRITE else "",
        "" if ttl is None else str(ttl),
    )


def get(key: str) -> Arguments:
    return ("HMGET", key, "data", "version")


def get_plain(key: str) -> Arguments:
    """For a plain string, which very old versions of Dapr wrote."""
    return ("GET", key)


def put(request: SetRequest, default_ttl: int | None) -> Arguments:
    etag, first, ttl = _conditions(request, default_ttl)
    return ("EVALSHA", _PUT_DIGEST, 1, request.key, etag, first, ttl, request.value)


def delete(request: DeleteRequest) -> Arguments:
    etag = _version(request.etag, request.key)
    if not etag:
        return ("DEL", request.key)
    return ("EVALSHA", _DELETE_DIGEST, 1, request.key, etag)


def transaction(operations: Sequence[StateOperation], default_ttl: int | None) -> Arguments:
    keys = [operation.key for operation in operations]
    arguments: list[bytes | str] = []
    for operation in operations:
        if isinstance(operation, SetRequest):
            arguments += ("S", *_conditions(operation, default_ttl), operation.value)
        else:
            arguments += ("D", _version(operation.etag, operation.key), "", "", "")
    return ("EVALSHA", _TRANSACT_DIGEST, len(keys), *keys, *arguments)


def read_hash(key: str, reply: Sequence[bytes | None]) -> GetResult | None:
    data, version = reply
    if data is None or version is None:
        if data is version:
            return None
        field = "data" if data is None else "version"
        raise StateError(f"key {key} has no field {field}: no state store wrote it")
    return GetResult(data, version.decode())


_REASONS = {
    1: "possible etag mismatch. error from state store: the etag of {} is another one",
    2: "first write of key {}, which already exists",
    3: "key {} was written with first-write concurrency: overwriting it takes its etag",
}


def check_set(request: SetRequest, reply: int) -> None:
    if reply:
        raise EtagMismatch(_REASONS[reply].format(request.key))


def check_delete(request: DeleteRequest, reply: int) -> None:
    # Without an etag the answer is DEL's: how many keys there were.
    if request.etag and reply:
        raise EtagMismatch(_REASONS[1].format(request.key))


def check_transaction(operations: Sequence[StateOperation], reply: Sequence[int]) -> None:
    position, reason = reply
    if reason:
        raise EtagMismatch(_REASONS[reason].format(operations[position - 1].key))
