"""Service invocation by `InvokeService`: the caller's side (resolve, scope, call the other node) and the
callee's side (call the application).

Between nodes it is `dapr.proto.internals.v1.ServiceInvocation/CallLocal`, as daprd speaks it, so either side
may be a daprd. What the application itself answers, its errors included, travels inside
`InternalInvokeResponse.status`; an error of CallLocal itself is the mesh's.
"""

from __future__ import annotations

import random
import socket
from typing import final

from attrs import frozen
from grpclib.const import Status

from meshnode.app import AppChannel, AppUnavailable
from meshnode.blocks.call import Call
from meshnode.blocks.internalmetadata import CALLEE, CALLER, from_internal, to_internal
from meshnode.blocks.methodname import normalized
from meshnode.blocks.scoped import scoped_app_call
from meshnode.blocks.unary import call_unary, decoded
from meshnode.cluster import Peers
from meshnode.errors import CircuitOpen, ErrorInfoDetail, InvalidArgument, MeshError
from meshnode.resiliency import Policies
from meshnode.telemetry.tracecontext import next_traceparent
from meshnode.transport import ConnectionLost, GRPCError, HeaderBlock
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.internals import v1 as internals
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google import rpc

__all__ = ["AppFailed", "Invocation", "Invoked", "Target", "parse_target"]

_CALL_LOCAL = b"/dapr.proto.internals.v1.ServiceInvocation/CallLocal"
_ON_INVOKE = b"/dapr.proto.runtime.v1.AppCallback/OnInvoke"
Pair = tuple[bytes, bytes]


@frozen
class Target:
    """Which application is meant."""

    app_id: str
    namespace: str


@frozen
class Invoked:
    """The application's answer as the caller's API gives it back."""

    message: common.InvokeResponse
    headers: list[Pair]
    trailers: list[Pair]


def parse_target(text: str, own_namespace: str) -> Target:
    """`app` or `app.namespace`. Raises `MeshError` with Dapr's words."""
    if not text:
        raise MeshError("app id is empty", status=Status.UNKNOWN)
    app_id, _, namespace = text.partition(".")
    if not app_id or "." in namespace:
        raise MeshError(f"invalid app id {text}", status=Status.UNKNOWN)
    return Target(app_id, namespace or own_namespace)


class AppFailed(GRPCError):
    """The application answered with an error: what it sent goes back to the caller unchanged, unless a
    policy retries its code.
    """

    def __init__(
        self, status: Status, message: str, details: bytes | None, headers: list[Pair], trailers: list[Pair]
    ) -> None:
        super().__init__(status, message, details)
        self.headers = headers
        self.trailers = trailers


@final
class Invocation:
    """Both sides of InvokeService for one node."""

    def __init__(
        self,
        *,
        app_id: str,
        namespace: str,
        app: AppChannel,
        peers: Peers,
        policies: Policies,
        rng: random.Random,
        host: str,
    ) -> None:
        self._own = Target(app_id, namespace)
        self._app = app
        self._peers = peers
        self._policies = policies
        self._rng = rng
        self._host = host
        self._host_name = socket.gethostname()

    async def invoke(
        self, request: runtime.InvokeServiceRequest, headers: HeaderBlock, call: Call
    ) -> Invoked:
        """Call a method of another application, or of one's own. Raises what the caller is to see."""
        message = request.message if request.message is not None else common.InvokeRequest()

        async def attempt() -> Invoked:
            return await self._attempt(request.id, message, headers, call)

        try:
            message.method = normalized(message.method)
            return await scoped_app_call(self._policies, request.id, message.method, attempt, call)
        except MeshError as error:
            if isinstance(error, CircuitOpen) or error.code in (Status.DEADLINE_EXCEEDED, Status.CANCELLED):
                raise
            raise _invoke_failed(request.id, str(error)) from error
        except GRPCError as error:
            if isinstance(error, AppFailed) or error.status in (Status.DEADLINE_EXCEEDED, Status.CANCELLED):
                raise
            raise _invoke_failed(request.id, error.message or error.status.name) from error

    async def _attempt(
        self, to: str, message: common.InvokeRequest, headers: HeaderBlock, call: Call
    ) -> Invoked:
        target = parse_target(to, self._own.namespace)
        metadata = self._metadata(target, headers)
        inner = internals.InternalInvokeRequest(
            ver=internals.ApiVersion.V1, metadata=metadata, message=message
        )
        if target == self._own:
            if not self._app.configured:
                raise AppUnavailable("cannot invoke local endpoint: app channel not initialized")
            response = await self.call_application(inner, call)
        else:
            response = await self._call_peer(target, inner, headers, call)
        headers_out = list(from_internal(response.headers))
        trailers_out = list(from_internal(response.trailers))
        status = response.status
        if status is not None and status.code:
            details = _details(status)
            raise AppFailed(_status(status.code), status.message, details, headers_out, trailers_out)
        answer = response.message if response.message is not None else common.InvokeResponse()
        return Invoked(answer, headers_out, trailers_out)

    async def _call_peer(
        self, target: Target, request: internals.InternalInvokeRequest, headers: HeaderBlock, call: Call
    ) -> internals.InternalInvokeResponse:
        peer = await self._peers.pick(target.app_id, target.namespace)
        trace = (b"traceparent", next_traceparent(headers.get(b"traceparent"), self._rng))
        with self._peers.watch(peer):
            answer = await call_unary(peer.channel, _CALL_LOCAL, request, call.deadline, [trace])
        if answer.error is not None:
            raise answer.error
        sender = f"the node of {target.app_id}"
        return decoded(internals.InternalInvokeResponse, answer.message, sender)

    async def call_application(
        self, request: internals.InternalInvokeRequest, call: Call
    ) -> internals.InternalInvokeResponse:
        """The callee's side: AppCallback.OnInvoke.

        An application that cannot be reached has answered UNAVAILABLE, as in Dapr; only its caller's policy
        decides whether to try again. Raises `AppUnavailable` where there is none, or one that is unhealthy.
        """
        if request.message is None:
            raise InvalidArgument("parsing InternalInvokeRequest error: Message field is nil")
        meant = request.metadata.get(CALLEE)
        if meant is not None and meant.values and meant.values[0].partition(".")[0] != self._own.app_id:
            # The caller's address book is out of date; UNAVAILABLE lets it look again.
            words = f"this node serves {self._own.app_id}, not {meant.values[0]}"
            raise MeshError(words, status=Status.UNAVAILABLE)
        extra = [*from_internal(request.metadata), *self._app.own_headers()]
        channel = self._app.channel
        try:
            async with self._app.admitted():
                answer = await call_unary(channel, _ON_INVOKE, request.message, call.deadline, extra)
        except ConnectionLost as lost:
            return internals.InternalInvokeResponse(status=_internal_status(lost))
        message = None
        if answer.message is not None:
            message = decoded(common.InvokeResponse, answer.message, "the application")
        return internals.InternalInvokeResponse(
            status=_internal_status(answer.error),
            headers=to_internal(answer.headers),
            trailers=to_internal(answer.trailers),
            message=message,
        )

    def _metadata(self, target: Target, headers: HeaderBlock) -> dict[str, internals.ListStringValue]:
        """What the callee learns: the caller's metadata, who called whom, and where it came through, as Dapr
        adds it.
        """
        one = internals.ListStringValue
        metadata = to_internal(headers)
        metadata[CALLER] = one(values=[self._own.app_id])
        metadata["dapr-caller-namespace"] = one(values=[self._own.namespace])
        metadata[CALLEE] = one(values=[target.app_id])
        metadata["destination-app-id"] = one(values=[target.app_id])
        metadata["traceparent"] = one(
            values=[next_traceparent(headers.get(b"traceparent"), self._rng).decode()]
        )
        forwarded = f"host={self._host_name}"
        if self._host:
            metadata["x-forwarded-for"] = one(values=[self._host])
            forwarded = f"for={self._host};by={self._host};{forwarded}"
        metadata["x-forwarded-host"] = one(values=[self._host_name])
        metadata["forwarded"] = one(values=[forwarded])
        return metadata


def _invoke_failed(app_id: str, cause: str) -> MeshError:
    return MeshError(
        f"failed to invoke, id: {app_id}, err: {cause}",
        ErrorInfoDetail("ERR_DIRECT_INVOKE"),
        status=Status.INTERNAL,
    )


def _status(code: int) -> Status:
    try:
        return Status(code)
    except ValueError:
        return Status.UNKNOWN


def _details(status: internals.Status) -> bytes:
    return bytes(rpc.Status(code=status.code, message=status.message, details=status.details))


def _internal_status(error: GRPCError | None) -> internals.Status:
    if error is None:
        return internals.Status(message="")
    try:
        details = rpc.Status.parse(error.details).details if error.details else []
    except ValueError:
        details = []  # the application's status counts, whatever it wrapped around it
    return internals.Status(code=error.status.value, message=error.message or "", details=details)
