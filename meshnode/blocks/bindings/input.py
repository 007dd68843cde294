"""Input bindings: what happens outside reaches OnBindingEvent, and what the application answers is done:
state saved, output bindings invoked.

Nothing is read before the application is ready and, unless the component's `direction` asks for input, has
named the binding in ListInputBindings. An event counts as taken when the application answered and what it
asked for has been done; in Dapr a failure of the latter is a line in the log.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from functools import partial
from typing import final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.bindings.components import Binding
from meshnode.blocks.bindings.output import OutputBindings
from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.fleet import Fleet
from meshnode.blocks.keeping import (
    ask_app,
    call_app,
    first_of,
    keep_going,
    pause_for_breaker,
    wait_for_app,
)
from meshnode.blocks.state import StateBlock
from meshnode.blocks.unary import decoded
from meshnode.errors import CircuitOpen, MeshError, Status
from meshnode.interfaces import BindingEvent, BindingRequest, Outcome
from meshnode.resiliency import Policies, run, unwrap
from meshnode.telemetry.tracecontext import next_traceparent
from meshnode.transport import Deadline, GRPCError
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["InputBindings"]

_log = logging.getLogger("meshnode.bindings")

_ON_EVENT = b"/dapr.proto.runtime.v1.AppCallback/OnBindingEvent"
_CREATE = "create"
_PARALLEL = runtime.BindingEventResponseBindingEventConcurrency.PARALLEL


@final
class _Reading:
    """One binding that is being read until `stop`."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.stop = trio.Event()


@final
class InputBindings:
    """The input side of a node's bindings. `stop` is set when no further event is to be taken.

    `bindings` may change; `renew` then says so.
    """

    def __init__(
        self,
        bindings: Mapping[str, Binding],
        *,
        app: AppChannel,
        policies: Policies,
        output: OutputBindings,
        state: StateBlock,
        live: LiveCalls,
        rng: random.Random,
        stop: trio.Event,
    ) -> None:
        self._rng = rng
        self._bindings = bindings
        self._app = app
        self._policies = policies
        self._output = output
        self._state = state
        self._live = live
        self._stop = stop
        self._fleet = Fleet(stop, self._read)
        self._reading: dict[str, _Reading] = {}
        self._listed: frozenset[str] | None = None
        self._asking = False
        self._changed = trio.Event()

    async def run(self) -> None:
        """Read from those that the application wants; return when all have ended, which is after `stop`."""
        if not self._app.configured:
            return
        self._asking = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fleet.run)
            while not self._stop.is_set():
                changed = self._changed = trio.Event()
                self._want()
                if self._listed is None and any(not one.explicit for one in self._readable()):
                    self._listed = await self._named()
                    if not self._stop.is_set():
                        self._want()
                await first_of(changed.wait, self._stop.wait)

    def renew(self) -> None:
        """Go by the bindings as they are now."""
        if self._asking:
            self._want()
            self._changed.set()

    async def settled(self, patience: float) -> None:
        """Return when nothing is under way any more that `renew` has ended; what takes longer than `patience`
        seconds is cancelled, which gives it back.
        """
        await self._fleet.settled(patience)

    def _readable(self) -> list[Binding]:
        return [one for one in self._bindings.values() if one.input is not None]

    def _want(self) -> None:
        before, self._reading = self._reading, {}
        for one in self._readable():
            if one.explicit or (self._listed is not None and one.name in self._listed):
                held = before.get(one.name)
                same = held is not None and held.binding is one
                self._reading[one.name] = held if held is not None and same else _Reading(one)
            elif self._listed is not None:
                _log.info("app has not subscribed to binding %s.", one.name)
        self._fleet.want(self._reading)

    async def _read(self, reading: _Reading) -> None:
        binding, stop = reading.binding, reading.stop
        source = binding.input
        assert source is not None
        consume = partial(source.read, partial(self._receive, reading), stop)
        await keep_going(f"input binding {binding.name}", consume, stop)

    async def _named(self) -> frozenset[str]:
        """The bindings that the application lists; none where it has no such list."""
        policy = self._policies.built_in("DaprBuiltInInitializationRetries")
        answer = await ask_app("input bindings", self._app, self._list_bindings, policy, self._stop)
        return frozenset(answer.bindings if answer is not None else ())

    async def _list_bindings(self) -> runtime.ListInputBindingsResponse:
        try:
            return await runtime.AppCallbackStub(self._app.channel).list_input_bindings(
                Empty(), metadata=self._app.own_metadata
            )
        except GRPCError as error:
            if error.status is not Status.UNIMPLEMENTED:
                raise
            return runtime.ListInputBindingsResponse()

    async def _receive(self, reading: _Reading, event: BindingEvent) -> Outcome:
        """One event's way into the application and back."""
        binding = reading.binding
        call = self._live.begin(f"/bindings/{binding.name}", binding.name, None)
        try:
            return await self._deliver(binding, event, call, reading.stop)
        except Exception as raised:  # the boundary of a delivery: whatever it was, the event is kept
            error = unwrap(raised)
            known = isinstance(error, MeshError | GRPCError)
            text = "error from app consumer for binding [%s]: %s"
            _log.warning(text, binding.name, error, exc_info=None if known else error)
            return Outcome.RETRY
        finally:
            self._live.end(call)

    async def _deliver(self, binding: Binding, event: BindingEvent, call: Call, stop: trio.Event) -> Outcome:
        policy = binding.inbound
        view = None if policy.is_noop else call.watched(policy, policy.target)
        attempt = partial(self._attempt, binding, event)
        refusals = 0
        while await wait_for_app(self._app, stop):
            try:
                response = await run(policy, attempt, view=view, stop=stop)
            except CircuitOpen:
                await pause_for_breaker(policy, stop, refusals)
                refusals += 1
            else:
                await self._act_on(response, call)
                return Outcome.ACK
        return Outcome.RETRY

    async def _attempt(self, binding: Binding, event: BindingEvent) -> runtime.BindingEventResponse:
        seconds = binding.inbound.timeout
        deadline = Deadline.after(seconds) if seconds else None
        request = runtime.BindingEventRequest(
            name=binding.name, data=event.data, metadata=dict(event.metadata)
        )
        incoming = event.metadata.get("traceparent", "").encode("ascii", "replace")
        trace = (b"traceparent", next_traceparent(incoming or None, self._rng))
        answer = await call_app(self._app, _ON_EVENT, request, deadline, [trace])
        if answer.error is not None:
            raise answer.error
        return decoded(runtime.BindingEventResponse, answer.message, "the application")

    async def _act_on(self, response: runtime.BindingEventResponse, call: Call) -> None:
        if response.states:
            saving = runtime.SaveStateRequest(store_name=response.store_name, states=response.states)
            await self._state.save(saving, call)
        if response.to:
            data = response.data
            if response.concurrency == _PARALLEL:
                async with trio.open_nursery() as nursery:
                    for name in response.to:
                        nursery.start_soon(self._send, name, data, call)
            else:
                for name in response.to:
                    await self._send(name, data, call)

    async def _send(self, name: str, data: bytes, call: Call) -> None:
        await self._output.send(name, BindingRequest(_CREATE, data), call)
