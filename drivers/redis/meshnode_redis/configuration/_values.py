"""What stands in Redis: channels, flags and values. No I/O.

A value is `value||version`; one without the bars has no version. An empty value is none, as in Dapr.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshnode.interfaces import ConfigurationItem

__all__ = ["changes", "item", "key_of", "prefix", "with_flags"]

_WANTED = "KA"
_ALL = frozenset("g$lshzxetd")
"""What the flag `A` stands for, in every version."""


def prefix(db: int) -> bytes:
    """What the channels of a database's keys begin with."""
    return b"__keyspace@%d__:" % db


def key_of(channel: bytes, begin: bytes) -> str | None:
    """None for what is not a key's, or no text."""
    if not channel.startswith(begin):
        return None
    try:
        return channel[len(begin) :].decode()
    except UnicodeDecodeError:
        return None


def with_flags(given: str) -> str | None:
    """What `notify-keyspace-events` has to be; None: what it is will do. Somebody else's flags stay."""
    flags = set(given)
    if "K" in flags and ("A" in flags or flags >= _ALL):
        return None
    return _WANTED + "".join(sorted(flags - set(_WANTED) - _ALL))


def item(raw: bytes | None) -> ConfigurationItem | None:
    if raw is None:
        return None
    parts = raw.decode("utf-8", "replace").split("||")
    return ConfigurationItem(parts[0], parts[1] if len(parts) > 1 else "") if parts[0] else None


def changes(
    known: Mapping[str, ConfigurationItem], found: Mapping[str, ConfigurationItem]
) -> dict[str, ConfigurationItem | None]:
    """From one to the other."""
    changed: dict[str, ConfigurationItem | None] = {key: None for key in known if key not in found}
    changed.update((key, one) for key, one in found.items() if known.get(key) != one)
    return changed
