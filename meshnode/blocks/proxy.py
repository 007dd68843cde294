"""Transparent proxying: any method with `dapr-app-id` in its metadata goes to that application, whatever its
messages are.

Messages are never decoded. A call is unary or streaming as its messages show; nobody has to say
`dapr-stream`. Everything up to the first response message may be repeated under the target's policy, with
the request messages seen so far replayed; from then on the stream is the two applications' own, and neither
retry nor attempt timeout touches it. Status, message, details and trailers of the callee go back as they
came.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import final

import trio
from grpclib.const import Status

from meshnode.app import AppChannel
from meshnode.blocks.call import Call
from meshnode.blocks.invocation import Target, parse_target
from meshnode.blocks.methodname import normalized
from meshnode.blocks.scoped import scoped_stream
from meshnode.cluster import LookupFailed, Peer, Peers
from meshnode.errors import MeshError
from meshnode.resiliency import Policies, unwrap
from meshnode.security.access import AccessPolicy
from meshnode.telemetry.tracecontext import next_traceparent
from meshnode.transport import Channel, GRPCError, HeaderBlock, ProtocolError, RawCall, RawClientCall, rules

__all__ = ["Proxy"]

Pair = tuple[bytes, bytes]
_REPLAY_LIMIT = 256 * 1024
"""Bytes of request messages kept for a retry; a stream that sends more before its first answer is not
repeated.
"""

_NO_APP_ID = "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"
_NO_SUCH_METHOD = "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found"
"""The same of a method that Dapr's own services would have: by these words SDKs know that it is missing, and
fall back to an older one. (Of those that the contract has and this node has not it answers UNIMPLEMENTED,
which they know too.)
"""
_DAPRS_OWN = "/dapr.proto.runtime."

# Replaced or dropped on each hop. The API token is between an application and its own node.
_HOP = frozenset(
    {b":method", b":scheme", b":path", b":authority", b"te", b"content-type", b"grpc-timeout"}
    | {b"traceparent", b"dapr-app-id", b"dapr-caller-app-id", b"dapr-callee-app-id", b"dapr-api-token"}
    | {b"dapr-stream", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
    | {b"host"}
)


class _CalleeFailed(GRPCError):
    """The callee ended the call with an error before its first message; `headers` and `trailers` are as it
    sent them.
    """

    def __init__(self, error: GRPCError, headers: HeaderBlock, trailers: HeaderBlock) -> None:
        super().__init__(error.status, error.message, error.details)
        self.headers = headers
        self.trailers = trailers


@final
class _Requests:
    """The caller's messages; those read so far are kept, and can be sent again, for as long as a retry is
    possible.
    """

    __slots__ = ("_call", "_held", "_kept", "ended", "replayable")

    def __init__(self, call: RawCall) -> None:
        self._call = call
        self._kept: list[bytes] = []
        self._held = 0
        self.ended = False
        self.replayable = True

    async def read(self) -> bytes | None:
        """The next message off the wire, None after the last one. Cancelling it loses nothing: what was read
        is kept.
        """
        if self.ended:
            return None
        frame = await self._call.receive_frame()
        if frame is None:
            self.ended = True
            return None
        self.ended = self._call.half_closed
        if self.replayable:
            self._kept.append(frame)
            self._held += len(frame)
            if self._held > _REPLAY_LIMIT and len(self._kept) > 1:
                self.release()
        return frame

    async def read_what_is_there(self) -> None:
        """Take the first message if it came with the headers, as a unary one does; never wait for it, because
        in a call that streams both ways the callee may be the first to speak.
        """
        if self._call.readable:
            await self.read()

    def kept(self) -> tuple[bytes, ...]:
        """The messages read before this attempt."""
        return tuple(self._kept)

    def release(self) -> None:
        """No retry is possible any more: keep nothing."""
        self.replayable = False
        self._kept.clear()

    @property
    def single(self) -> bytes | None:
        """The only message of a caller that has already half-closed, None for any other."""
        return self._kept[0] if self.ended and len(self._kept) == 1 else None


@final
class Proxy:
    """The fallback of both of a node's servers: `from_application` on its API, `from_peer` on its internal
    server.
    """

    def __init__(
        self,
        *,
        app_id: str,
        namespace: str,
        app: AppChannel,
        peers: Peers,
        policies: Policies,
        rng: random.Random,
        access: AccessPolicy,
    ) -> None:
        self._own = Target(app_id, namespace)
        self._own_id = app_id.encode()
        self._access = access
        self._app = app
        self._peers = peers
        self._policies = policies
        self._rng = rng

    async def from_application(self, raw: RawCall, call: Call) -> None:
        """A call that the application beside this node makes. Raises MeshError or GRPCError for what the
        caller is to see.
        """
        to = raw.headers.get(b"dapr-app-id")
        if to is None:
            to = raw.headers.get(b"dapr-callee-app-id")
        if to is None:
            missing = _NO_SUCH_METHOD if raw.path.startswith(_DAPRS_OWN) else _NO_APP_ID
            raise MeshError(missing, status=Status.UNKNOWN)
        name = to.decode("utf-8", "replace")
        target = parse_target(name, self._own.namespace)
        if target == self._own:
            normalized(raw.path)  # refuses what is none
            await self._to_application(raw, self._own_id)
            return
        requests = _Requests(raw)
        await requests.read_what_is_there()

        async def attempt(commit: Callable[[], None]) -> None:
            peer = await self._pick(target)
            with self._peers.watch(peer):
                headers = partial(self._to_peer, raw, peer, target)
                await self._exchange(raw, requests, peer.channel, headers, commit)

        try:
            await scoped_stream(self._policies, name, raw.path, attempt, call, lambda: requests.replayable)
        except _CalleeFailed as failed:
            await raw.respond(failed.headers, None, failed.trailers)

    async def from_peer(self, raw: RawCall, call: Call) -> None:
        """A call that another node forwards to the application beside this one."""
        to = raw.headers.get(b"dapr-callee-app-id") or raw.headers.get(b"dapr-app-id")
        if not to:
            raise MeshError(_NO_APP_ID, status=Status.UNKNOWN)
        if parse_target(to.decode("utf-8", "replace"), self._own.namespace).app_id != self._own.app_id:
            # Its address book is out of date; UNAVAILABLE lets it look again. Passing the call on could go
            # round in circles.
            raise MeshError(
                f"this node serves {self._own.app_id}, not {to.decode(errors='replace')}",
                status=Status.UNAVAILABLE,
            )
        # Access control judges the plain path; the application, as with Dapr, gets it as it came.
        self._access.check(normalized(raw.path))
        await self._to_application(raw, raw.headers.get(b"dapr-caller-app-id") or b"")

    async def _to_application(self, raw: RawCall, caller: bytes) -> None:
        channel = self._app.channel
        requests = _Requests(raw)
        await requests.read_what_is_there()
        headers = partial(self._to_own, raw, channel.authority.encode(), caller)
        try:
            if self._app.limited:
                async with self._app.admitted():
                    await self._exchange(raw, requests, channel, headers, requests.release)
            else:
                await self._exchange(raw, requests, channel, headers, requests.release)
        except _CalleeFailed as failed:
            await raw.respond(failed.headers, None, failed.trailers)

    async def _pick(self, target: Target) -> Peer:
        try:
            return await self._peers.pick(target.app_id, target.namespace)
        except LookupFailed as error:
            raise MeshError(str(error), status=Status.UNKNOWN) from error

    def _to_own(self, raw: RawCall, authority: bytes, caller: bytes) -> list[Pair]:
        headers = _forwarded(raw, authority, self._rng)
        headers.append((b"dapr-caller-app-id", caller))
        headers.append((b"dapr-callee-app-id", self._own_id))
        headers.extend(self._app.own_headers())
        return headers

    def _to_peer(self, raw: RawCall, peer: Peer, target: Target) -> list[Pair]:
        headers = _forwarded(raw, peer.channel.authority.encode(), self._rng)
        headers.append((b"dapr-caller-app-id", self._own_id))
        headers.append((b"dapr-callee-app-id", target.app_id.encode()))
        return headers

    async def _exchange(
        self,
        raw: RawCall,
        requests: _Requests,
        channel: Channel,
        headers: Callable[[], list[Pair]],
        commit: Callable[[], None],
    ) -> None:
        """One attempt, from its request headers to its trailers. Leaving the call early resets it."""
        out = channel.open_raw(headers)
        single = requests.single
        if single is not None:
            # Headers and message leave in one write; no task is needed to send what is already here.
            await out.begin_unary(single)
            try:
                await self._answer(raw, requests, out, commit)
            finally:
                out.close()
            return
        try:
            async with out, trio.open_nursery() as nursery:
                nursery.start_soon(_send_requests, requests, out)
                await self._answer(raw, requests, out, commit)
                nursery.cancel_scope.cancel()  # the callee is done: nothing more of the caller's is wanted
        except ExceptionGroup as group:
            # A lone error has to leave as itself: callers look for `_CalleeFailed` and `ConnectionLost`.
            error = unwrap(group)
            if error is group:
                raise
            raise error from error.__cause__

    async def _answer(
        self, raw: RawCall, requests: _Requests, out: RawClientCall, commit: Callable[[], None]
    ) -> None:
        headers = await out.headers()
        first = await out.receive_frame()
        if first is None:
            trailers = out.trailers
            error = rules.result_of(trailers)
            if error is not None:
                raise _CalleeFailed(error, headers, trailers)
            commit()
            await raw.respond(headers, None, trailers)
            return
        commit()
        requests.release()
        more: bytes | None
        if out.readable:
            # A unary answer has come whole by now, and leaves in one write.
            more = await out.receive_frame()
            if more is None:
                await raw.respond(headers, first, out.trailers)
                return
            await raw.send_headers(headers)
            await raw.send_frame(first)
            await raw.send_frame(more)
        else:
            await raw.send_headers(headers)
            await raw.send_frame(first)
        while (more := await out.receive_frame()) is not None:
            await raw.send_frame(more)
        await raw.send_trailers(out.trailers)


async def _send_requests(requests: _Requests, out: RawClientCall) -> None:
    try:
        for frame in requests.kept():
            await out.send_frame(frame)
        while (more := await requests.read()) is not None:
            await out.send_frame(more, end=requests.ended)
            if requests.ended:
                return
        await out.end()
    except (GRPCError, ProtocolError):
        # A callee may answer before it has heard everything. Whoever reads its answer learns how it ended.
        if not out.has_ended:
            raise


def _forwarded(raw: RawCall, authority: bytes, rng: random.Random) -> list[Pair]:
    """The request's headers for the next hop: what is the hop's own replaced, the deadline shrunk, the rest
    as it came.
    """
    incoming = raw.headers
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", raw.path.encode()),
        (b":authority", authority),
        (b"te", b"trailers"),
        (b"content-type", incoming.get(b"content-type") or b"application/grpc"),
    ]
    if raw.deadline is not None:
        headers.append((b"grpc-timeout", rules.format_timeout(raw.deadline.time_remaining())))
    headers.append((b"traceparent", next_traceparent(incoming.get(b"traceparent"), rng)))
    headers.extend(pair for pair in incoming if pair[0] not in _HOP)
    return headers
