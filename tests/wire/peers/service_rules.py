"""The test service `wire.Test`, as every implementation of it behaves.

Methods: Echo (one to one), Collect (many to one: all joined), Spread (one to many: the request says how
many), Chat (each message back at once), Hang (sends its initial metadata, then nothing, until it is
cancelled; streaming both ways).

What a call's metadata asks for, any method does: `x-initial…` and `x-trailing…` come back as initial and
trailing metadata; `x-fail` ends the call with that code, `x-message-bin` being its message (UTF-8) and
`x-details-bin` its details; a stream fails after its messages are sent. `x-size` is the size of each message
of Spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SERVICE = "wire.Test"
METHODS = {"Echo": "uu", "Collect": "su", "Spread": "us", "Chat": "ss", "Hang": "ss"}
CALLS = {**METHODS, "Missing": "uu"}  # what clients call; no server has the last one

Value = str | bytes


@dataclass
class Wish:
    """What the metadata of a call asks for."""

    initial: list[tuple[str, Value]] = field(default_factory=list)
    trailing: list[tuple[str, Value]] = field(default_factory=list)
    fail: int = 0
    message: str = ""
    details: bytes | None = None
    size: int = 0


def wish_of(metadata: Iterable[tuple[str, Value]]) -> Wish:
    wish = Wish()
    for key, value in metadata:
        if key.startswith("x-initial"):
            wish.initial.append((key, value))
        elif key.startswith("x-trailing"):
            wish.trailing.append((key, value))
        elif key == "x-fail":
            wish.fail = int(value)
        elif key == "x-message-bin":
            wish.message = bytes(value).decode()
        elif key == "x-details-bin":
            wish.details = bytes(value)
        elif key == "x-size":
            wish.size = int(value)
    return wish


def spread(request: bytes, wish: Wish) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number + b"." * wish.size
