"""The conformance suites of bindings themselves: sound ones pass, broken ones are caught."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from meshnode.errors import BindingError, InvalidArgument
from meshnode.interfaces import BindingEvent, BindingRequest, BindingResult, Outcome, open_deliveries
from meshnode.testing.conformance import bindings


class Source:
    """A sound input binding and what it reads from, for subclasses to break."""

    def __init__(self):
        self.waiting = deque()
        self.arrival = trio.Event()

    async def fire(self, data):
        self.waiting.append(data)
        self.arrival.set()

    async def next(self):
        while not self.waiting:
            self.arrival = trio.Event()
            await self.arrival.wait()
        return self.waiting.popleft()

    async def read(self, receive, stop, *, task_status):
        async with open_deliveries(limit=1, stop=stop) as deliveries:
            task_status.started()
            while await deliveries.room():
                data = await deliveries.unless_stopped(self.next)
                if data is not None:
                    deliveries.start(partial(self.hand, receive, data, stop))

    async def hand(self, receive, data, stop):
        outcome = None
        try:
            outcome = await receive(BindingEvent(data))
            if outcome is Outcome.RETRY:
                with trio.move_on_after(0.02):
                    await stop.wait()
        finally:
            if outcome is not Outcome.ACK:
                self.waiting.appendleft(data)
                self.arrival.set()


class SaysNothing(Source):
    async def read(self, receive, stop, *, task_status):
        task_status.started()
        await stop.wait()


class GivesText(Source):
    async def hand(self, receive, data, stop):
        await receive(BindingEvent(data.decode()))


class TriesOnce(Source):
    async def hand(self, receive, data, stop):
        await receive(BindingEvent(data))


class NeverStops(Source):
    async def read(self, receive, stop, *, task_status):
        await super().read(receive, trio.Event(), task_status=task_status)


class StopsHard(Source):
    async def read(self, receive, stop, *, task_status):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(super().read, receive, trio.Event(), task_status=task_status))
            await stop.wait()
            nursery.cancel_scope.cancel()


class ReadsOnce(Source):
    done = False

    async def read(self, receive, stop, *, task_status):
        if self.done:
            task_status.started()
            await stop.wait()
        self.done = True
        await super().read(receive, stop, task_status=task_status)


BROKEN_INPUTS = {
    SaysNothing: "it_reads",
    GivesText: "it_reads",
    ReadsOnce: "it_can_be_read_again",
    TriesOnce: "an_event_to_be_tried_again_comes_again",
    NeverStops: "stop_ends_an_idle_read",
    StopsHard: "stop_finishes_what_is_under_way",
}


def input_setup(kind):
    source = kind()

    @asynccontextmanager
    async def opened():
        yield source

    return bindings.InputSetup(opened, source.fire)


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_a_sound_input_passes(check, autojump_clock):
    assert await check.run(input_setup(Source))


@pytest.mark.parametrize("kind", BROKEN_INPUTS, ids=lambda kind: kind.__name__)
async def test_a_broken_input_is_caught(kind, autojump_clock):
    (check,) = [check for check in bindings.INPUT_CHECKS if check.name == BROKEN_INPUTS[kind]]
    with pytest.raises(bindings.ConformanceError):
        await check.run(input_setup(kind))


async def test_what_an_input_does_not_promise_is_not_checked(autojump_clock):
    source = TriesOnce()

    @asynccontextmanager
    async def opened():
        yield source

    setup = bindings.InputSetup(opened, source.fire, redelivers=False)
    ran = [check.name for check in bindings.INPUT_CHECKS if await check.run(setup)]
    assert "it_reads" in ran
    assert "an_event_to_be_tried_again_comes_again" not in ran


class Output:
    """A sound output binding, for subclasses to break."""

    operations = ("create", "get")

    async def invoke(self, request):
        await trio.lowlevel.checkpoint()
        if request.operation not in self.operations:
            raise InvalidArgument(f"no operation {request.operation}")
        return BindingResult(request.data)


class NamesNothing(Output):
    @property
    def operations(self):
        return ()


class TakesAnything(Output):
    async def invoke(self, request):
        return BindingResult()


class BlamesItself(Output):
    async def invoke(self, request):
        if request.operation not in self.operations:
            raise BindingError("unknown operation")
        return await super().invoke(request)


class AnswersWithBytes(Output):
    async def invoke(self, request):
        await super().invoke(request)
        return b""


class TakesOneAtATime(Output):
    busy = False

    async def invoke(self, request):
        if self.busy:
            raise BindingError("busy")
        self.busy = True
        try:
            return await super().invoke(request)
        finally:
            self.busy = False


class DiesOfCancellation(Output):
    busy = False

    async def invoke(self, request):
        if self.busy:
            await trio.sleep_forever()
        self.busy = True
        result = await super().invoke(request)
        self.busy = False
        return result


BROKEN_OUTPUTS = {
    NamesNothing: "operations_are_named",
    TakesAnything: "an_unknown_operation_is_refused",
    BlamesItself: "an_unknown_operation_is_refused",
    AnswersWithBytes: "an_operation_answers",
    TakesOneAtATime: "operations_run_side_by_side",
    DiesOfCancellation: "cancelled_operations_harm_nobody",
}


def output_setup(kind):
    @asynccontextmanager
    async def opened():
        yield kind()

    return bindings.OutputSetup(opened, BindingRequest("create", b"x"))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_a_sound_output_passes(check, autojump_clock):
    assert await check.run(output_setup(Output))


@pytest.mark.parametrize("kind", BROKEN_OUTPUTS, ids=lambda kind: kind.__name__)
async def test_a_broken_output_is_caught(kind, autojump_clock):
    (check,) = [check for check in bindings.OUTPUT_CHECKS if check.name == BROKEN_OUTPUTS[kind]]
    with pytest.raises((bindings.ConformanceError, BindingError, ExceptionGroup)):
        await check.run(output_setup(kind))
