"""The conformance suites of bindings, one for each direction.

    import pytest
    from meshnode.testing.conformance import bindings

    @pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
    async def test_input(check, open_binding, fire):
        await check.run(bindings.InputSetup(open_binding, fire))

    @pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
    async def test_output(check, open_binding):
        await check.run(bindings.OutputSetup(open_binding, BindingRequest("create", b"x")))

`open` takes nothing and returns an async context manager that yields the binding. `run` returns False where
the setup says that a check does not apply. The first violation raises `ConformanceError`.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar, final

import trio
from attrs import frozen

from meshnode.errors import MeshError, Status
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    InputBinding,
    Outcome,
    OutputBinding,
)
from meshnode.testing.conformance._check import ConformanceError, bare, expect, within
from meshnode.testing.conformance._readers import Gate, Reader, acknowledge, reading

__all__ = [
    "INPUT_CHECKS",
    "OUTPUT_CHECKS",
    "BindingCheck",
    "ConformanceError",
    "InputSetup",
    "OutputSetup",
]


@final
@frozen
class InputSetup:
    """An input binding under test.

    `fire` makes one event with that data happen at the source, while the binding reads. `carries_data`: the
    event brings the data (a timer's does not). `redelivers`: `RETRY` makes an event come again. `durable`:
    what was under way in a cancelled read comes to the next one. Redelivery intervals should be short.
    """

    open: Callable[[], AbstractAsyncContextManager[InputBinding]]
    fire: Callable[[bytes], Awaitable[None]]
    carries_data: bool = True
    redelivers: bool = True
    durable: bool = True
    quiet: float = 0.2
    patience: float = 20

    def reading(
        self, binding: InputBinding, answer: Callable[[BindingEvent], Awaitable[Outcome]] = acknowledge
    ) -> AbstractAsyncContextManager[Reader[BindingEvent]]:
        return reading(binding.read, answer, self.patience)


@final
@frozen
class OutputSetup:
    """An output binding under test. `example` is a request it can serve any number of times."""

    open: Callable[[], AbstractAsyncContextManager[OutputBinding]]
    example: BindingRequest
    patience: float = 20


S = TypeVar("S", InputSetup, OutputSetup)


@final
@frozen
class BindingCheck(Generic[S]):
    """One rule a binding must keep."""

    name: str
    body: Callable[[S], Awaitable[None]]
    when: Callable[[S], bool] = lambda _setup: True

    def __str__(self) -> str:
        return self.name

    async def run(self, setup: S) -> bool:
        if not self.when(setup):
            return False
        with bare():
            await self.body(setup)
        return True


async def it_reads(setup: InputSetup) -> None:
    """What happens the moment after `started` is received."""
    async with setup.open() as binding:
        expect(isinstance(binding, InputBinding), "the object lacks a method of InputBinding")
        async with setup.reading(binding) as reader:
            for number, data in enumerate((b"hello", b'{"a": 1}')):
                await setup.fire(data)
                await reader.has_finished(number + 1)
                event = reader.messages[-1]
                expect(type(event.data) is bytes, "data is bytes")
                expect(all(isinstance(value, str) for value in event.metadata.values()), "metadata is text")
                expect(not setup.carries_data or event.data == data, f"{data!r} came as {event.data!r}")


async def it_can_be_read_again(setup: InputSetup) -> None:
    async with setup.open() as binding:
        for _ in range(3):
            async with setup.reading(binding) as reader:
                await setup.fire(b"1")
                await reader.has_finished(1)


async def an_event_to_be_tried_again_comes_again(setup: InputSetup) -> None:
    async def third_time(_event: BindingEvent) -> Outcome:
        return Outcome.ACK if len(reader.messages) == 3 else Outcome.RETRY

    async with setup.open() as binding, setup.reading(binding, third_time) as reader:
        await setup.fire(b"stubborn")
        await reader.has_finished(1)
        await trio.sleep(setup.quiet)  # no event tells that something will never happen
        expect(len(reader.messages) == 3, f"expected 3 deliveries, got {len(reader.messages)}")


async def stop_ends_an_idle_read(setup: InputSetup) -> None:
    async with setup.open() as binding, setup.reading(binding) as reader:
        reader.stop()
        await reader.ended()


async def stop_finishes_what_is_under_way(setup: InputSetup) -> None:
    gate = Gate()
    async with setup.open() as binding, setup.reading(binding, gate) as reader:
        await setup.fire(b"1")
        await reader.has(1)
        reader.stop()
        await trio.sleep(setup.quiet)
        expect(not reader.has_ended, "the read ended before its delivery")
        gate.open()
        await reader.ended()
        expect(len(reader.finished) == len(reader.messages), "what was under way was not finished")


async def a_cancelled_read_ends(setup: InputSetup) -> None:
    async with setup.open() as binding:
        async with setup.reading(binding, Gate()) as reader:
            await setup.fire(b"1")
            await reader.has(1)
            await reader.cancel()
        async with setup.reading(binding) as again:
            await setup.fire(b"2")
            await again.has_finished(1)


async def a_cancelled_delivery_comes_to_the_next_read(setup: InputSetup) -> None:
    async with setup.open() as binding:
        async with setup.reading(binding, Gate()) as reader:
            await setup.fire(b"1")
            await reader.has(1)
            await reader.cancel()
        async with setup.reading(binding) as again:
            await again.has_finished(1)
            expect(again.received[0] == b"1" or not setup.carries_data, "another event came")


async def operations_are_named(setup: OutputSetup) -> None:
    async with setup.open() as binding:
        expect(isinstance(binding, OutputBinding), "the object lacks a method of OutputBinding")
        names = list(binding.operations)
        expect(bool(names) and all(names), "a binding has at least one operation, each with a name")
        expect(len(names) == len(set(names)), f"operations are named twice: {names}")
        expect(setup.example.operation in names, "the example's operation is not among them")


async def an_unknown_operation_is_refused(setup: OutputSetup) -> None:
    async with setup.open() as binding:
        try:
            await binding.invoke(BindingRequest("no-such-operation"))
        except MeshError as error:
            expect(error.code is Status.INVALID_ARGUMENT, f"INVALID_ARGUMENT was due, not {error.code}")
        else:
            raise ConformanceError("an unknown operation was accepted")
        await _invoke(setup, binding)


async def an_operation_answers(setup: OutputSetup) -> None:
    async with setup.open() as binding:
        result = await _invoke(setup, binding)
        expect(isinstance(result, BindingResult), "invoke returns a BindingResult")
        expect(type(result.data) is bytes, "data is bytes")
        expect(all(isinstance(value, str) for value in result.metadata.values()), "metadata is text")


async def operations_run_side_by_side(setup: OutputSetup) -> None:
    async with setup.open() as binding, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(_invoke, setup, binding)


async def cancelled_operations_harm_nobody(setup: OutputSetup) -> None:
    async with setup.open() as binding:
        for turn in range(6):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_invoke, setup, binding)
                for _ in range(turn):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await _invoke(setup, binding)


async def _invoke(setup: OutputSetup, binding: OutputBinding) -> BindingResult:
    with within(setup.patience, f"{setup.example.operation} did not return"):
        return await binding.invoke(setup.example)


def _collect(
    *bodies: Callable[[S], Awaitable[None]], when: Callable[[S], bool] = lambda _setup: True
) -> tuple[BindingCheck[S], ...]:
    return tuple(BindingCheck(body.__name__, body, when) for body in bodies)


INPUT_CHECKS: tuple[BindingCheck[InputSetup], ...] = (
    *_collect(
        it_reads,
        it_can_be_read_again,
        stop_ends_an_idle_read,
        stop_finishes_what_is_under_way,
        a_cancelled_read_ends,
    ),
    *_collect(an_event_to_be_tried_again_comes_again, when=lambda setup: setup.redelivers),
    *_collect(
        a_cancelled_delivery_comes_to_the_next_read,
        when=lambda setup: setup.redelivers and setup.durable,
    ),
)
OUTPUT_CHECKS: tuple[BindingCheck[OutputSetup], ...] = _collect(
    operations_are_named,
    an_unknown_operation_is_refused,
    an_operation_answers,
    operations_run_side_by_side,
    cancelled_operations_harm_nobody,
)
