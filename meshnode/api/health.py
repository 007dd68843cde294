"""`grpc.health.v1.Health`: Check, List where asked, and Watch.

The empty service name is the whole node. Watchers get the current status at once and each change after it;
what a slow watcher missed in between it never sees, as the protocol allows.
"""

from __future__ import annotations

from typing import Any, final

import trio

from meshnode.api.service import Gate, Stream, bind
from meshnode.blocks.call import Call, LiveCalls
from meshnode.errors import MeshError, Status
from meshnode.security.tokens import TokenCheck
from meshnode.wire.grpc.health import v1 as health

__all__ = ["Health"]

_Serving = health.HealthCheckResponseServingStatus


@final
class Health:
    """The state of the node and of each service it serves. Probes need no API token, as probes have none to
    show.
    """

    def __init__(self) -> None:
        self._services: dict[str, bool] = {"": False}
        self._changed = trio.Event()
        self._over = False

    def set(self, service: str, serving: bool) -> None:
        """Note a service's state and wake its watchers. A node that shuts down serves nothing any more."""
        if self._over or self._services.get(service) == serving:
            return
        self._services[service] = serving
        self._wake()

    def end_watches(self) -> None:
        """The node shuts down: each watch ends after telling its watcher NOT_SERVING, so that draining need
        not wait for them.
        """
        self._services = dict.fromkeys(self._services, False)
        self._over = True
        self._wake()

    def handlers(self) -> Any:
        gate = Gate(LiveCalls(), TokenCheck(""))
        return bind(
            health.HealthBase(), {"Check": self._check, "Watch": self._watch, "List": self._list}, gate
        )

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _status(self, service: str) -> health.HealthCheckResponseServingStatus | None:
        serving = self._services.get(service)
        if serving is None:
            return None
        return _Serving.SERVING if serving else _Serving.NOT_SERVING

    async def _check(
        self, request: health.HealthCheckRequest, stream: Stream, call: Call
    ) -> health.HealthCheckResponse:
        status = self._status(request.service)
        if status is None:
            raise MeshError(f"unknown service {request.service}", status=Status.NOT_FOUND)
        return health.HealthCheckResponse(status=status)

    async def _list(self, request: Any, stream: Stream, call: Call) -> Any:
        statuses = {
            name: health.HealthCheckResponse(status=self._status(name) or _Serving.UNKNOWN)
            for name in self._services
        }
        return health.HealthListResponse(statuses=statuses)

    async def _watch(self, request: health.HealthCheckRequest, stream: Stream, call: Call) -> None:
        sent: health.HealthCheckResponseServingStatus | None = None
        while True:
            changed = self._changed
            status = self._status(request.service) or _Serving.SERVICE_UNKNOWN
            if status != sent:
                await stream.send_message(health.HealthCheckResponse(status=status))
                sent = status
            if self._over:
                return
            await changed.wait()
