"""Calls to whichever member answers (asyncio side).

A request that surely has not reached a member goes to the next. One that may have is repeated only when it
changes nothing. Calls begin with the member that answered last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, final

from betterproto2.grpclib import ServiceStub
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from meshnode_etcd._link import TROUBLE, Link, Lost, Member
from meshnode_etcd._login import Login
from meshnode_etcd.wire.etcdserverpb import WatchRequest, WatchResponse

__all__ = ["Deliver", "Members", "Method"]

S = TypeVar("S", bound=ServiceStub)
Q = TypeVar("Q")
R = TypeVar("R")
Deliver = Callable[[WatchResponse], Awaitable[None]]
Method = Callable[[S, Q], Coroutine[Any, Any, R]]
"""A method of a generated stub."""

_WATCH = "/etcdserverpb.Watch/Watch"
_PASSING = (Status.UNAVAILABLE, Status.UNKNOWN, Status.CANCELLED, Status.DEADLINE_EXCEEDED)
"""What a member answers that stops, or has no leader, or has lost the others; `UNKNOWN` is what etcd makes of
raft's own errors.
"""
_NEEDS_LEADER = {"hasleader": "true"}
"""A member that has lost its cluster then ends the watch instead of being silent."""


@final
class Members:
    """The cluster as this component sees it."""

    def __init__(self, members: list[Member], login: Login, dial: float, request: float) -> None:
        self._members = members
        self._login = login
        self._dial = dial
        self._request = request
        self._first = 0
        self._closed = False

    async def call(self, stub: type[S], method: Method[S, Q, R], request: Q, repeatable: bool) -> R:
        """The answer. Raises `Lost` where no member gave one, `GRPCError` for a refusal."""
        trouble: Lost | None = None
        for member in self._in_turn(repeatable):
            try:
                return await self._attempt(member, stub, method, request)
            except Lost as lost:
                self._pass_over(member)
                # What an earlier attempt may have done stays possible, whatever this one met.
                sent = lost.sent or (trouble is not None and trouble.sent)
                trouble = Lost(self._at(member, lost), sent=sent)
                if lost.sent and not repeatable:
                    break
        raise trouble or Lost("closed", sent=False)

    def _in_turn(self, repeatable: bool) -> list[Member]:
        """The first comes again at the end: its old connection may have been all that was wrong."""
        if self._closed:
            return []
        turn = self._members[self._first :] + self._members[: self._first]
        return [*turn, turn[0]] if repeatable else turn

    def _pass_over(self, member: Member) -> None:
        if self._members[self._first] is member:
            self._first = (self._first + 1) % len(self._members)

    def _at(self, member: Member, error: Exception) -> str:
        where = f"{member.address}: " if len(self._members) > 1 else ""
        return f"{where}{str(error) or type(error).__name__}"

    async def _attempt(self, member: Member, stub: type[S], method: Method[S, Q, R], request: Q) -> R:
        sent = False
        async with member.connected(self._dial) as link:
            try:
                async with asyncio.timeout(self._request):
                    metadata = await self._login.metadata(link.channel)
                    sent = True
                    try:
                        return await method(stub(link.channel, metadata=metadata), request)
                    except GRPCError as error:
                        if not self._login.is_stale(error):
                            raise
                    sent = False
                    await self._login.renew(link.channel, metadata)
                    metadata = await self._login.metadata(link.channel)
                    sent = True
                    return await method(stub(link.channel, metadata=metadata), request)
            except GRPCError as error:
                if error.status in _PASSING:
                    raise Lost(error.message or error.status.name, sent=sent) from error
                raise
            except TimeoutError as error:
                member.renew(link)
                raise Lost("no answer in time", sent=sent) from error
            except TROUBLE as error:
                raise Lost(str(error) or type(error).__name__, sent=sent) from error

    async def listen(self, requests: Sequence[WatchRequest], deliver: Deliver) -> None:
        """Watches at the first member until one of them ends. Raises `Lost`, `GRPCError`, `LoginRefused`."""
        if self._closed:
            raise Lost("closed", sent=False)
        member = self._members[self._first]
        try:
            async with member.connected(self._dial) as link:
                try:
                    await self._listen(link, requests, deliver)
                except TimeoutError:
                    member.renew(link)
                    raise
        except Lost as lost:
            self._pass_over(member)
            raise Lost(self._at(member, lost), sent=lost.sent) from lost
        except TROUBLE as error:
            self._pass_over(member)
            raise Lost(self._at(member, error), sent=True) from error
        except GRPCError:
            self._pass_over(member)
            raise

    async def _listen(self, link: Link, requests: Sequence[WatchRequest], deliver: Deliver) -> None:
        async with asyncio.timeout(self._request):
            metadata = await self._login.metadata(link.channel)
        sent = {**metadata, **_NEEDS_LEADER}
        kind = Cardinality.STREAM_STREAM
        async with link.channel.request(_WATCH, kind, WatchRequest, WatchResponse, metadata=sent) as stream:
            for request in requests:
                await stream.send_message(request)
            async with asyncio.timeout(self._request):
                response = await stream.recv_message()
            while response is not None and not response.canceled:
                await deliver(response)
                response = await stream.recv_message()
            if response is not None and not response.compact_revision:
                # Refused: perhaps only for a token that etcd has forgotten, which it does not say here.
                async with asyncio.timeout(self._request):
                    await self._login.renew(link.channel, metadata)
                raise Lost(response.cancel_reason or "the watch was ended", sent=True)
            if response is not None:
                await deliver(response)
                await stream.cancel()

    async def aclose(self) -> None:
        self._closed = True
        for member in self._members:
            member.close()
