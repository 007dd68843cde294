"""`meshnode.admin.v1.Admin`: what the command line asks a node."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, final

import trio
from attrs import frozen

from meshnode import __version__
from meshnode.api.adminviews import breaker_view, explanation, live_request
from meshnode.api.service import Gate, Implementation, Stream, bind
from meshnode.app import AppChannel
from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.metadata import NodeMetadata
from meshnode.errors import InvalidArgument
from meshnode.resiliency import Policies
from meshnode.telemetry.logs import LogEntry, LogTail
from meshnode.wire.meshnode.admin import v1 as admin

__all__ = ["AdminApi", "NodeFacts", "NodeState"]

_LEVELS = ("debug", "info", "warning", "error", "fatal")
_SAME_LEVEL = {"": "debug", "warn": "warning"}


@frozen
class NodeFacts:
    """What does not change while a node runs, and the little that does as callables."""

    app_id: str
    namespace: str
    grpc_address: str
    internal_address: str
    state: Callable[[], admin.NodeState]
    connections: Callable[[], int]
    started_at: float
    health_checked: bool = False


@final
class NodeState:
    """Starting until `ready` is set, draining from the moment that somebody asked the node to stop."""

    def __init__(self, stopping: trio.Event) -> None:
        self.ready = False
        self._stopping = stopping

    def __call__(self) -> admin.NodeState:
        if self._stopping.is_set():
            return admin.NodeState.DRAINING
        return admin.NodeState.READY if self.ready else admin.NodeState.STARTING


@final
class AdminApi:
    def __init__(
        self,
        *,
        facts: NodeFacts,
        metadata: NodeMetadata,
        app: AppChannel,
        policies: Policies,
        live: LiveCalls,
        tail: LogTail,
        gate: Gate,
    ) -> None:
        self._facts = facts
        self._metadata = metadata
        self._app = app
        self._policies = policies
        self._live = live
        self._tail = tail
        self._gate = gate

    def handlers(self) -> Any:
        implementations: dict[str, Implementation] = {
            "GetStatus": self._get_status,
            "ListRequests": self._list_requests,
            "ListBreakers": self._list_breakers,
            "StreamLogs": self._stream_logs,
            "Explain": self._explain,
        }
        return bind(admin.AdminBase(), implementations, self._gate)

    async def _get_status(
        self, request: admin.GetStatusRequest, stream: Stream, call: Call
    ) -> admin.NodeStatus:
        facts = self._facts
        return admin.NodeStatus(
            app_id=facts.app_id,
            namespace=facts.namespace,
            version=__version__,
            pid=os.getpid(),
            started_at=facts.started_at,
            state=facts.state(),
            grpc_address=facts.grpc_address,
            internal_address=facts.internal_address,
            app_address=self._app.address,
            app_healthy=self._app.healthy if facts.health_checked else None,
            components=[
                admin.ComponentStatus(
                    name=one.name, type=one.type, version=one.version, state=one.state, message=one.message
                )
                for one in self._metadata.components
            ],
            in_flight=max(0, len(self._live) - 1),  # this call is not news to its caller
            requests_total=self._live.total,
            connections=facts.connections(),
        )

    async def _list_requests(
        self, request: admin.ListRequestsRequest, stream: Stream, call: Call
    ) -> admin.ListRequestsResponse:
        now = trio.current_time()
        found = [live_request(one, now) for one in self._live if one is not call]
        wanted = [
            one for one in found if any(request.filter in text for text in (one.method, one.peer, one.target))
        ]
        return admin.ListRequestsResponse(requests=wanted)

    async def _list_breakers(
        self, request: admin.ListBreakersRequest, stream: Stream, call: Call
    ) -> admin.ListBreakersResponse:
        return admin.ListBreakersResponse(
            breakers=[breaker_view(one) for one in self._policies.breakers(trio.current_time())]
        )

    async def _explain(
        self, request: admin.ExplainRequest, stream: Stream, call: Call
    ) -> admin.ExplainResponse:
        return explanation(self._policies, request)

    async def _stream_logs(self, request: admin.StreamLogsRequest, stream: Stream, call: Call) -> None:
        level = _SAME_LEVEL.get(request.level, request.level)
        if level not in _LEVELS:
            raise InvalidArgument(f"unknown log level {level!r}; there are {', '.join(_LEVELS)}")
        allowed = _LEVELS[_LEVELS.index(level) :]

        def wanted(entry: LogEntry) -> bool:
            return entry.level in allowed and entry.scope.startswith(request.scope)

        with self._tail.watch() as records:
            if request.tail:
                for entry in [entry for entry in self._tail.kept() if wanted(entry)][-request.tail :]:
                    await stream.send_message(_log_record(entry))
            if request.no_follow:
                return
            async for entry in records:
                if wanted(entry):
                    await stream.send_message(_log_record(entry))


def _log_record(entry: LogEntry) -> admin.LogRecord:
    return admin.LogRecord(
        time=entry.time,
        level=entry.level,
        scope=entry.scope,
        message=entry.message,
        fields=dict(entry.fields),
    )
