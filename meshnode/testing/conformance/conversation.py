"""The conformance suite of conversation drivers.

    import pytest
    from meshnode.testing.conformance import conversation

    @pytest.mark.parametrize("check", conversation.CHECKS, ids=str)
    async def test_conversation(check, open_model):
        await check.run(conversation.ConversationSetup(open_model))

`open` takes nothing and returns an async context manager that yields the driver; what is behind it must
answer any request, and a request that offers a tool with a call of that tool. The first violation raises
`ConformanceError`.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import final

import trio
from attrs import frozen

from meshnode.interfaces import (
    ChatMessage,
    ChatRole,
    Conversation,
    ConverseOutput,
    ConverseRequest,
    Tool,
    ToolCall,
)
from meshnode.testing.conformance._check import ConformanceError, bare, expect, within

__all__ = ["CHECKS", "ConformanceError", "ConversationCheck", "ConversationSetup"]

_HELLO = ConverseRequest([ChatMessage(ChatRole.USER, ("hello",))])
_TOOL = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})


@final
@frozen
class ConversationSetup:
    """A driver under test. `json_arguments`: tool calls carry a JSON object, as a model's do."""

    open: Callable[[], AbstractAsyncContextManager[Conversation]]
    json_arguments: bool = True
    patience: float = 20


@final
@frozen
class ConversationCheck:
    """One rule a conversation driver must keep."""

    name: str
    body: Callable[[ConversationSetup], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def run(self, setup: ConversationSetup) -> None:
        with bare():
            await self.body(setup)


async def it_answers(setup: ConversationSetup) -> None:
    async with setup.open() as model:
        expect(isinstance(model, Conversation), "the object lacks a method of Conversation")
        with within(setup.patience, "no answer"):
            _sound(await model.converse(_HELLO))


async def every_role_is_understood(setup: ConversationSetup) -> None:
    """A whole history: instructions, a question, the call of a tool, its result, another question."""
    history = [
        ChatMessage(ChatRole.SYSTEM, ("be brief",)),
        ChatMessage(ChatRole.DEVELOPER, ("say so in English",)),
        ChatMessage(ChatRole.USER, ("how is the weather", "in Rome?"), name="ann"),
        ChatMessage(ChatRole.ASSISTANT, (), tool_calls=(ToolCall("get_weather", '{"city": "Rome"}', "c1"),)),
        ChatMessage(ChatRole.TOOL, ("sunny",), "get_weather", tool_id="c1"),
        ChatMessage(ChatRole.USER, ("and tomorrow?",)),
    ]
    request = ConverseRequest(history, [_TOOL], "none", temperature=0.5, max_tokens=100)
    async with setup.open() as model:
        with within(setup.patience, "no answer"):
            _sound(await model.converse(request))


async def tools_are_called(setup: ConversationSetup) -> None:
    async with setup.open() as model:
        request = ConverseRequest(_HELLO.messages, [_TOOL], "required")
        with within(setup.patience, "no answer"):
            outputs = await model.converse(request)
    _sound(outputs)
    calls = [call for output in outputs for choice in output.choices for call in choice.tool_calls]
    expect([call.name for call in calls] == [_TOOL.name], f"{_TOOL.name} is called once, not {calls!r}")
    expect(bool(calls[0].id), "a call has an id, which its result names")
    expect(outputs[0].choices[0].finish_reason == "tool_calls", "a choice that calls says tool_calls")
    if setup.json_arguments:
        expect(isinstance(json.loads(calls[0].arguments), dict), "arguments are a JSON object")


async def calls_run_side_by_side(setup: ConversationSetup) -> None:
    async with setup.open() as model:

        async def ask() -> None:
            _sound(await model.converse(_HELLO))

        with within(setup.patience, "not all have answered"):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask)


async def a_cancelled_call_harms_nobody(setup: ConversationSetup) -> None:
    async with setup.open() as model:
        with trio.CancelScope() as scope:
            scope.cancel()
            await model.converse(_HELLO)
        expect(scope.cancelled_caught, "a call that is cancelled already ends by that")
        with within(setup.patience, "no answer after a cancelled call"):
            _sound(await model.converse(_HELLO))


def _sound(outputs: Sequence[ConverseOutput]) -> None:
    expect(bool(outputs), "there is an output")
    for output in outputs:
        expect(isinstance(output, ConverseOutput), "outputs are ConverseOutput")
        expect(bool(output.choices), "an output has a choice")
        for choice in output.choices:
            expect(isinstance(choice.text, str), "a choice's text is text")
            expect(bool(choice.finish_reason), "a choice says why it ends")


CHECKS: tuple[ConversationCheck, ...] = tuple(
    ConversationCheck(body.__name__, body)
    for body in (
        it_answers,
        every_role_is_understood,
        tools_are_called,
        calls_run_side_by_side,
        a_cancelled_call_harms_nobody,
    )
)
