"""One HTTP/2 stream: its two halves, its windows, and the messages received but not yet taken.

`reader` and `writer` are wake tokens: whoever waits for something puts one there, and the connection hands it
to its `wake` callback when it is worth looking again. That keeps this module free of any scheduler.

Sans-io; imports messages and hpack.
"""

from __future__ import annotations

from collections import deque
from typing import Any, final

from grpclib.exceptions import GRPCError

from meshnode.transport.hpack import HeaderBlock
from meshnode.transport.messages import PREFIX_SIZE, Assembler

__all__ = ["H2Stream"]


@final
class H2Stream:
    """State of one stream, changed by the connection only, except for the tokens and `owner`."""

    __slots__ = (
        "assembler",
        "content_left",
        "discarding",
        "error",
        "first",
        "headers",
        "id",
        "local_ended",
        "more",
        "owed",
        "owner",
        "prepaid",
        "reader",
        "received",
        "recv_window",
        "remote_ended",
        "send_window",
        "stalled",
        "trailers",
        "writer",
    )

    def __init__(self, stream_id: int, send_window: int, recv_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.recv_window = recv_window
        self.headers: HeaderBlock | None = None
        self.trailers: HeaderBlock | None = None
        self.first: bytes | None = None  # the next message: nearly always the only one
        self.more: deque[bytes] | None = None  # those after it
        self.assembler: Assembler | None = None  # of a message that came in pieces
        self.received = 0  # bytes received whose credit was not yet given back
        self.prepaid = (
            0  # bytes of the message being assembled whose credit was given back before it was whole
        )
        self.owed = 0  # credit to give back on the stream, until it is worth a frame
        self.content_left = -1  # what content-length still promises; -1 without one
        self.local_ended = False
        self.remote_ended = False
        self.stalled = False  # the connection's send window kept it from sending
        self.discarding = False  # nobody will read: what comes in is dropped
        self.error: GRPCError | None = None  # why the stream ended, if not by its trailers
        self.reader: Any = None
        self.writer: Any = None
        self.owner: Any = None  # whoever handles the stream

    def push(self, message: bytes) -> None:
        """Append one whole message."""
        if self.first is None:
            self.first = message
        elif self.more is None:
            self.more = deque((message,))
        else:
            self.more.append(message)

    def pop(self) -> bytes | None:
        """Take the next message, if there is a whole one; its credit is the connection's business."""
        message = self.first
        if message is not None:
            self.first = self.more.popleft() if self.more else None
        return message

    def accept(self, payload: bytes, max_size: int) -> None:
        """Take the bytes of a DATA frame; GRPCError if they announce a message that may not be."""
        assembler = self.assembler
        if assembler is None:
            # Nearly always a frame holds exactly one message: nothing is copied then.
            size = len(payload) - PREFIX_SIZE
            if size >= 0 and payload[0] < 2 and int.from_bytes(payload[1:5], "big") == size <= max_size:
                self.push(payload)
                return
            assembler = self.assembler = Assembler(max_size)
        for message in assembler.feed(payload):
            self.push(message)
