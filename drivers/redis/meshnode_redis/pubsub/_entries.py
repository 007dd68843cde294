"""What stands in a stream. No I/O.

Layout, shared with Dapr: the stream is named as the topic; an entry has the message in `data` and, where the
publisher gave any, its metadata in `metadata`, a JSON object of strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, final

from attrs import frozen

from meshnode.interfaces import Message, PublishRequest
from meshnode_redis._script import Arguments

__all__ = ["Entry", "message_of", "publication", "read_claimed", "read_stream"]


@final
@frozen
class Entry:
    """`fields` is None when the entry was trimmed or deleted while it was pending."""

    id: bytes
    fields: Mapping[bytes, bytes] | None


def publication(request: PublishRequest, max_len: int, oldest: float | None) -> Arguments:
    """`oldest` is the time, in seconds since 1970, before which entries may go."""
    trim: Arguments = ()
    if max_len > 0:
        trim = ("MAXLEN", "~", max_len)
    elif oldest is not None:
        trim = ("MINID", "~", f"{max(int(oldest * 1000), 0)}-1")
    fields: Arguments = ("data", request.data)
    if request.metadata:
        text = json.dumps(dict(request.metadata), separators=(",", ":"), ensure_ascii=False)
        fields = (*fields, "metadata", text.encode())
    return ("XADD", request.topic, *trim, "*", *fields)


def read_stream(reply: Any) -> list[Entry]:
    """The answer of XREADGROUP for one stream."""
    return _read_entries(reply[0][1]) if reply else []


def read_claimed(reply: Sequence[Any]) -> list[Entry]:
    """The answer of our scripts that claim: ids, and those of their entries that still exist."""
    _, ids, found = reply
    there = {entry.id: entry for entry in _read_entries(found)}
    return [there.get(one, Entry(one, None)) for one in ids]


def _read_entries(reply: Sequence[Any]) -> list[Entry]:
    """As every command lists them; servers before 7 leave a hole where one was deleted."""
    return [_read_entry(*each) for each in reply if each is not None]


def _read_entry(key: bytes, flat: Sequence[bytes] | None) -> Entry:
    if flat is None:
        return Entry(key, None)
    return Entry(key, dict(zip(flat[::2], flat[1::2], strict=True)))


def message_of(entry: Entry, topic: str, position: int) -> tuple[Message, str]:
    """The message, and what is wrong with its metadata, if anything: it is delivered without, then."""
    fields = entry.fields or {}
    metadata, trouble = _read_metadata(fields.get(b"metadata"))
    return Message(topic, fields.get(b"data", b""), metadata=metadata, position=position), trouble


def _read_metadata(text: bytes | None) -> tuple[dict[str, str], str]:
    if text is None:
        return {}, ""
    try:
        found = json.loads(text)
    except ValueError as error:
        return {}, f"metadata is not JSON: {error}"
    if found is None:
        return {}, ""
    if not isinstance(found, dict):
        return {}, "metadata is not a JSON object"
    good = {name: value for name, value in found.items() if isinstance(value, str)}
    return good, "" if len(good) == len(found) else "metadata has values that are no text"
