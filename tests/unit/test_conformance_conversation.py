"""The conformance suite of conversation drivers itself: a sound one passes, broken ones are caught."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from meshnode.interfaces import ConverseChoice, ConverseOutput, ToolCall
from meshnode.testing.conformance import conversation

CALL = ToolCall("get_weather", '{"city": "Rome"}', "c1")


class Model:
    """A sound one, for subclasses to break."""

    call, reason = CALL, "tool_calls"

    async def converse(self, request):
        await trio.lowlevel.checkpoint()
        if request.tools and request.tool_choice != "none":
            return [ConverseOutput([ConverseChoice("", self.reason, tool_calls=[self.call])])]
        return [ConverseOutput([ConverseChoice("hi")])]


class SaysNothing(Model):
    async def converse(self, request):
        await trio.lowlevel.checkpoint()
        return []


class CallsNameless(Model):
    call = ToolCall("get_weather", "{}", "")


class CallsWithText(Model):
    call = ToolCall("get_weather", '"Rome"', "c1")


class StopsWhenItCalls(Model):
    reason = "stop"


class CannotBeCancelled(Model):
    async def converse(self, request):
        with trio.CancelScope(shield=True):
            return await super().converse(request)


class OneAtATime(Model):
    def __init__(self):
        self.busy = False

    async def converse(self, request):
        if self.busy:
            await trio.sleep_forever()
        self.busy = True
        try:
            return await super().converse(request)
        finally:
            self.busy = False


def setup(model):
    @asynccontextmanager
    async def opened():
        yield model()

    return conversation.ConversationSetup(opened, patience=1)


@pytest.mark.parametrize("check", conversation.CHECKS, ids=str)
async def test_a_sound_model_passes(check, autojump_clock):
    await check.run(setup(Model))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (SaysNothing, "it_answers"),
        (SaysNothing, "every_role_is_understood"),
        (CallsNameless, "tools_are_called"),
        (CallsWithText, "tools_are_called"),
        (StopsWhenItCalls, "tools_are_called"),
        (CannotBeCancelled, "a_cancelled_call_harms_nobody"),
        (OneAtATime, "calls_run_side_by_side"),
    ],
)
async def test_a_broken_model_is_caught(model, name, autojump_clock):
    (check,) = (one for one in conversation.CHECKS if one.name == name)
    with pytest.raises(conversation.ConformanceError):
        await check.run(setup(model))
