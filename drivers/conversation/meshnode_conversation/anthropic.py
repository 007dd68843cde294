"""`conversation.anthropic`: Anthropic's messages API, also as Microsoft Foundry offers it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, final

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
    key_problems,
    ttl_problems,
)

__all__ = ["Anthropic", "Options", "driver"]

_ENDPOINT = "https://api.anthropic.com/v1"
_MODEL = "claude-sonnet-4-6"
_VERSION = "2023-06-01"
_MOST_TOKENS = 4096
_SHORT = timedelta(minutes=5)

_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


@final
@frozen
class Options:
    """Metadata of `conversation.anthropic`."""

    key: str = option("key", "The API key.", secret=True)
    model: str = option(
        "model",
        f"The model, on Foundry the deployment; without it ANTHROPIC_MODEL, then {_MODEL}.",
        default="",
    )
    endpoint: str = option(
        "endpoint", f"The API's base URL instead of {_ENDPOINT}; required on Foundry.", default=""
    )
    api_type: str = option(
        "apiType", "Whose addresses.", default="anthropic", allowed=("anthropic", "foundry")
    )
    max_tokens: int = option("maxTokens", MAX_TOKENS_DOC, default=_MOST_TOKENS)
    response_cache_ttl: timedelta | None = option(
        "responseCacheTTL", RESPONSE_CACHE_DOC, default=None, aliases=("cacheTTL",)
    )

    def __attrs_post_init__(self) -> None:
        problems = [*key_problems(self.key), *ttl_problems(self.response_cache_ttl)]
        if self.endpoint:
            problems += endpoint_problems(self.endpoint)
        elif self.api_type == "foundry":
            problems.append(Problem("is required on Foundry", field="endpoint"))
        if self.max_tokens <= 0:
            problems.append(Problem("must be above 0", field="maxTokens"))
        if problems:
            raise ConfigError(problems)


@final
class Anthropic:
    """A `Conversation`."""

    def __init__(self, client: JsonClient, model: str, max_tokens: int) -> None:
        self._client = client
        self._model = model
        self._max_tokens = max_tokens

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens or self._max_tokens,
            "messages": _messages(request),
            **dict(_settings(request)),
        }
        answer = await self._client.ask(body)
        blocks = items(answer.get("content"))
        calls = [
            ToolCall(text(one.get("name")), json.dumps(record(one.get("input"))), text(one.get("id")))
            for one in blocks
            if one.get("type") == "tool_use"
        ]
        said = "".join(text(one.get("text")) for one in blocks if one.get("type") == "text")
        reason = text(answer.get("stop_reason"))
        choice = ConverseChoice(said, _REASONS.get(reason, reason), tool_calls=calls)
        return [ConverseOutput([choice], text(answer.get("model")), _usage(answer.get("usage")))]


def _messages(request: ConverseRequest) -> list[dict[str, Any]]:
    """Turns of user and assistant; the API wants one speaker's blocks in one turn, a tool's results too."""
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role in (ChatRole.SYSTEM, ChatRole.DEVELOPER):
            continue
        role = "assistant" if message.role is ChatRole.ASSISTANT else "user"
        if not (blocks := list(_blocks(message))):
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidArgument("Anthropic needs a message of the user")
    if request.cache_retention is not None:
        longer = request.cache_retention > _SHORT
        turns[-1]["content"][-1]["cache_control"] = {"type": "ephemeral", "ttl": "1h" if longer else "5m"}
    return turns


def _blocks(message: ChatMessage) -> Iterator[dict[str, Any]]:
    texts = [{"type": "text", "text": one} for one in message.texts if one]
    if message.role is ChatRole.TOOL:
        yield {"type": "tool_result", "tool_use_id": message.tool_id, "content": texts}
        return
    yield from texts
    for call in message.tool_calls:
        try:
            arguments = arguments_object(call.arguments)
        except ValueError as error:
            raise InvalidArgument(f"the arguments of the call of {call.name} are no JSON object") from error
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _settings(request: ConverseRequest) -> Iterator[tuple[str, Any]]:
    instructions = [
        {"type": "text", "text": one}
        for message in request.messages
        if message.role in (ChatRole.SYSTEM, ChatRole.DEVELOPER)
        for one in message.texts
        if one
    ]
    if instructions:
        yield "system", instructions
    if request.temperature is not None:
        yield "temperature", request.temperature
    if request.tools:
        yield "tools", [_tool(tool) for tool in request.tools]
        yield "tool_choice", _tool_choice(request.tool_choice or "auto")
    if request.response_format is not None:
        yield "output_config", {"format": {"type": "json_schema", "schema": dict(request.response_format)}}


def _tool(tool: Tool) -> dict[str, Any]:
    schema = {"type": "object", **tool.parameters}
    found = {"name": tool.name, "description": tool.description, "input_schema": schema}
    return {key: value for key, value in found.items() if value}


def _tool_choice(choice: str) -> dict[str, str]:
    if choice in ("auto", "none"):
        return {"type": choice}
    return {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}


def _usage(value: Any) -> ConverseUsage | None:
    """`input_tokens` leaves out what came from the provider's cache or went into it."""
    if not isinstance(value, dict):
        return None
    read = number(value.get("cache_read_input_tokens"))
    prompt = number(value.get("input_tokens")) + read + number(value.get("cache_creation_input_tokens"))
    completion = number(value.get("output_tokens"))
    return ConverseUsage(prompt, completion, prompt + completion, cached_tokens=read)


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Conversation]:
    model = options.model or context.env.get("ANTHROPIC_MODEL") or _MODEL
    url = (options.endpoint or _ENDPOINT).rstrip("/") + "/messages"
    headers = {"x-api-key": options.key, "anthropic-version": _VERSION}
    async with open_client(url, headers, options.key) as client:
        yield cached(Anthropic(client, model, options.max_tokens), options.response_cache_ttl)


driver: Driver[Conversation] = Driver(
    type="conversation.anthropic",
    metadata=Options,
    open=_open,
    summary="Anthropic's models.",
)
