"""`conversation.echo`: says back what it is told, for tests without a model.

The answer is one output with one choice: the texts of all messages, a line each. Every tool that is offered
is called, unless `tool_choice` is `none`: with the names of its parameters as arguments, as in Dapr.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import final

import trio
from attrs import frozen

from meshnode.errors import ConfigError
from meshnode.interfaces import (
    ChatMessage,
    ChatRole,
    Conversation,
    ConverseChoice,
    ConverseOutput,
    ConverseRequest,
    ConverseUsage,
    Driver,
    DriverContext,
    Tool,
    ToolCall,
    option,
)
from meshnode_conversation._cache import cached
from meshnode_conversation._options import RESPONSE_CACHE_DOC, ttl_problems

__all__ = ["Echo", "Options", "driver"]


@final
@frozen
class Options:
    """Metadata of `conversation.echo`."""

    model: str = option("model", "The name to answer under.", default="")
    response_cache_ttl: timedelta | None = option(
        "responseCacheTTL", RESPONSE_CACHE_DOC, default=None, aliases=("cacheTTL",)
    )

    def __attrs_post_init__(self) -> None:
        if problems := list(ttl_problems(self.response_cache_ttl)):
            raise ConfigError(problems)


@final
class Echo:
    """A `Conversation`."""

    def __init__(self, model: str = "") -> None:
        self._model = model

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]:
        await trio.lowlevel.checkpoint()
        answer = "\n".join(said for message in request.messages for said in _said(message))
        calls = [call for message in request.messages for call in message.tool_calls]
        calls += _calls(request)
        prompt, completion = _tokens(answer), _tokens(answer)
        return [
            ConverseOutput(
                [ConverseChoice(answer, "tool_calls" if calls else "stop", tool_calls=calls)],
                self._model,
                ConverseUsage(prompt, completion, prompt + completion),
            )
        ]


def _said(message: ChatMessage) -> Iterator[str]:
    for one in message.texts:
        if message.role is ChatRole.TOOL and message.tool_id:
            yield f"Tool Response for tool ID '{message.tool_id}' with name '{message.name}': {one}"
        else:
            yield one


def _calls(request: ConverseRequest) -> list[ToolCall]:
    if request.tool_choice == "none":
        return []
    named = [tool for tool in request.tools if tool.name == request.tool_choice]
    return [
        ToolCall(tool.name, ",".join(_parameters(tool)), str(number))
        for number, tool in enumerate(named or request.tools)
    ]


def _parameters(tool: Tool) -> list[str]:
    properties = tool.parameters.get("properties")
    return sorted(properties) if isinstance(properties, dict) else []


def _tokens(text: str) -> int:
    """As many as words, as in the reference."""
    return len(text.split())


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Conversation]:
    yield cached(Echo(options.model), options.response_cache_ttl)


driver: Driver[Conversation] = Driver(
    type="conversation.echo",
    metadata=Options,
    open=_open,
    summary="Says back what it is told.",
)
