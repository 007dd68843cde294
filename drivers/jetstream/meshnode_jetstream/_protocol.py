"""What travels between JetStream and its consumers: subjects, status messages, acknowledgements. No I/O.

A message that JetStream delivers has a reply subject which says everything about it; acknowledging is
publishing to that subject. What has no data but a status is from the server itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

__all__ = [
    "ACK",
    "BEAT",
    "EXPIRES",
    "IN_PROGRESS",
    "Origin",
    "event_id",
    "negative",
    "origin",
    "pull_request",
    "status",
]

ACK = b"+ACK"
IN_PROGRESS = b"+WPI"

EXPIRES = 30.0
"""Seconds for which the server remembers a pull request."""
BEAT = 5.0
"""Seconds between the signs of life it sends meanwhile."""

_NANO = 1_000_000_000


@frozen
class Origin:
    """What the reply subject says of a message."""

    stream: str
    consumer: str
    sequence: int
    delivered: int


def origin(reply: str) -> Origin | None:
    """None for a message that is not from a consumer.

    `$JS.ACK.stream.consumer.delivered.sequence.…`, and with a domain and an account's hash before the stream
    in servers that have them.
    """
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or len(tokens) < 9:
        return None
    start = 2 if len(tokens) == 9 else 4
    try:
        stream, consumer, delivered, sequence = tokens[start : start + 4]
        return Origin(stream, consumer, int(sequence), int(delivered))
    except ValueError:
        return None


def status(data: bytes, headers: Mapping[str, str] | None) -> tuple[int, str]:
    """Code and words of a message from the server itself; code 0 for any other."""
    code = (headers or {}).get("Status", "")
    if data or headers is None or not code.isdigit():
        return 0, ""
    return int(code), headers.get("Description", "")


def negative(delay: float = 0) -> bytes:
    """Gives a message back, to come again after that many seconds."""
    if delay <= 0:
        return b"-NAK"
    return b"-NAK " + json.dumps({"delay": round(delay * _NANO)}).encode()


def pull_request(batch: int) -> bytes:
    request = {"batch": batch, "expires": round(EXPIRES * _NANO), "idle_heartbeat": round(BEAT * _NANO)}
    return json.dumps(request).encode()


def event_id(data: bytes) -> str:
    """The id of a CloudEvent, by which JetStream knows a message that it has already; empty if it is none.

    Dapr also takes the `id` of any other JSON object for it, and loses what an application published twice
    with the same one.
    """
    if not data.lstrip().startswith(b"{") or b"specversion" not in data:
        return ""
    try:
        event: Any = json.loads(data)
    except ValueError:
        return ""
    found = event.get("id") if "specversion" in event else None
    # In a header it would begin a new line.
    return found if isinstance(found, str) and found.isprintable() else ""
