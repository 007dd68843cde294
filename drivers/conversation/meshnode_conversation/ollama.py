"""`conversation.ollama`: models that an Ollama server runs, by its own chat API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, final

from attrs import frozen

from meshnode.errors import ConfigError, InvalidArgument, Problem
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
from meshnode_conversation._http import JsonClient, open_client
from meshnode_conversation._json import arguments_object, items, number, record, text
from meshnode_conversation._options import (
    MAX_TOKENS_DOC,
    RESPONSE_CACHE_DOC,
    endpoint_problems,
    ttl_problems,
)

__all__ = ["Ollama", "Options", "driver"]

_ENDPOINT = "http://localhost:11434"
_MODEL = "llama3.2:latest"


@final
@frozen
class Options:
    """Metadata of `conversation.ollama`."""

    model: str = option("model", f"The model; without it OLLAMA_MODEL, then {_MODEL}.", default="")
    endpoint: str = option("endpoint", "The server's URL.", default=_ENDPOINT)
    max_tokens: int | None = option("maxTokens", MAX_TOKENS_DOC, default=None)
    response_cache_ttl: timedelta | None = option(
        "responseCacheTTL", RESPONSE_CACHE_DOC, default=None, aliases=("cacheTTL",)
    )

    def __attrs_post_init__(self) -> None:
        problems = [*ttl_problems(self.response_cache_ttl), *endpoint_problems(self.endpoint)]
        if self.max_tokens is not None and self.max_tokens <= 0:
            problems.append(Problem("must be above 0", field="maxTokens"))
        if problems:
            raise ConfigError(problems)


@final
class Ollama:
    """A `Conversation`."""

    def __init__(self, client: JsonClient, model: str, max_tokens: int | None) -> None:
        self._client = client
        self._model = model
        self._max_tokens = max_tokens

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]:
        body: dict[str, Any] = {
            "model": self._model,
            "stream": False,
            "messages": [_message(message) for message in request.messages],
            **dict(_settings(request, self._max_tokens)),
        }
        answer = await self._client.ask(body)
        message = record(answer.get("message"))
        calls = list(_calls(message))
        reason = "tool_calls" if calls else text(answer.get("done_reason")) or "stop"
        prompt, completion = number(answer.get("prompt_eval_count")), number(answer.get("eval_count"))
        return [
            ConverseOutput(
                [ConverseChoice(text(message.get("content")), reason, tool_calls=calls)],
                text(answer.get("model")),
                ConverseUsage(prompt, completion, prompt + completion),
            )
        ]


def _message(message: ChatMessage) -> dict[str, Any]:
    role = ChatRole.SYSTEM if message.role is ChatRole.DEVELOPER else message.role
    said: dict[str, Any] = {"role": role.value, "content": "\n".join(message.texts)}
    if role is ChatRole.TOOL:
        said["tool_name"] = message.name
    if message.tool_calls:
        said["tool_calls"] = [_asked(call) for call in message.tool_calls]
    return said


def _asked(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = arguments_object(call.arguments)
    except ValueError as error:
        raise InvalidArgument(f"the arguments of the call of {call.name} are no JSON object") from error
    return {"function": {"name": call.name, "arguments": arguments}}


def _settings(request: ConverseRequest, max_tokens: int | None) -> Iterator[tuple[str, Any]]:
    found = {"temperature": request.temperature, "num_predict": request.max_tokens or max_tokens}
    if options := {name: value for name, value in found.items() if value is not None}:
        yield "options", options
    if tools := _offered(request):
        yield "tools", [_tool(tool) for tool in tools]
    if request.response_format is not None:
        yield "format", dict(request.response_format)


def _offered(request: ConverseRequest) -> Sequence[Tool]:
    """The API has no choice of tools: a choice is made by what is offered."""
    if request.tool_choice == "none":
        return ()
    return [tool for tool in request.tools if tool.name == request.tool_choice] or request.tools


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _calls(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    """The API gives its calls no ids of old; their numbers serve."""
    for count, one in enumerate(items(message.get("tool_calls"))):
        function = record(one.get("function"))
        arguments = json.dumps(record(function.get("arguments")))
        yield ToolCall(text(function.get("name")), arguments, text(one.get("id")) or str(count))


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Conversation]:
    model = options.model or context.env.get("OLLAMA_MODEL") or _MODEL
    async with open_client(options.endpoint.rstrip("/") + "/api/chat", {}) as client:
        yield cached(Ollama(client, model, options.max_tokens), options.response_cache_ttl)


driver: Driver[Conversation] = Driver(
    type="conversation.ollama",
    metadata=Options,
    open=_open,
    summary="Models that an Ollama server runs.",
)
