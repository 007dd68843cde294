"""`conversation.openai`: chat completions of OpenAI and of every endpoint that speaks them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, final
from urllib.parse import quote

from attrs import frozen

from meshnode.errors import ConfigError, ConversationError, Problem
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
from meshnode_conversation._json import items, number, record, text
from meshnode_conversation._options import (
    MAX_TOKENS_DOC,
    RESPONSE_CACHE_DOC,
    endpoint_problems,
    key_problems,
    ttl_problems,
)

__all__ = ["OpenAI", "Options", "driver"]

_ENDPOINT = "https://api.openai.com/v1"
_MODEL = "gpt-4o"
_LONG = timedelta(hours=1)


@final
@frozen
class Options:
    """Metadata of `conversation.openai`."""

    key: str = option("key", "The API key; any text where the endpoint wants none.", secret=True)
    model: str = option(
        "model", f"The model, on Azure the deployment; without it OPENAI_MODEL, then {_MODEL}.", default=""
    )
    endpoint: str = option(
        "endpoint", f"The API's base URL instead of {_ENDPOINT}; required on Azure.", default=""
    )
    api_type: str = option(
        "apiType", "Whose addresses and headers.", default="openai", allowed=("openai", "azure")
    )
    api_version: str = option("apiVersion", "The API's version, required on Azure.", default="")
    max_tokens: int | None = option("maxTokens", MAX_TOKENS_DOC, default=None)
    response_cache_ttl: timedelta | None = option(
        "responseCacheTTL", RESPONSE_CACHE_DOC, default=None, aliases=("cacheTTL",)
    )

    def __attrs_post_init__(self) -> None:
        problems = [*key_problems(self.key), *ttl_problems(self.response_cache_ttl)]
        if self.endpoint:
            problems += endpoint_problems(self.endpoint)
        if self.api_type == "azure":
            needed = (("endpoint", self.endpoint), ("apiVersion", self.api_version))
            problems += [Problem("is required on Azure", field=name) for name, value in needed if not value]
        if self.max_tokens is not None and self.max_tokens <= 0:
            problems.append(Problem("must be above 0", field="maxTokens"))
        if problems:
            raise ConfigError(problems)


@final
class OpenAI:
    """A `Conversation`. `developer` says whether the endpoint knows that role, which is OpenAI's own."""

    def __init__(self, client: JsonClient, model: str, max_tokens: int | None, *, developer: bool) -> None:
        self._client = client
        self._model = model
        self._max_tokens = max_tokens
        self._developer = developer

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [self._message(message) for message in request.messages],
            **dict(_settings(request, self._max_tokens)),
        }
        answer = await self._client.ask(body)
        choices = [_choice(choice) for choice in items(answer.get("choices"))]
        if not choices:
            raise ConversationError("the model's answer has no choices")
        return [ConverseOutput(choices, text(answer.get("model")), _usage(answer.get("usage")))]

    def _message(self, message: ChatMessage) -> dict[str, Any]:
        role = message.role
        if role is ChatRole.DEVELOPER and not self._developer:
            role = ChatRole.SYSTEM
        parts: Any = [{"type": "text", "text": one} for one in message.texts]
        content = parts if len(parts) > 1 else "".join(message.texts)
        said: dict[str, Any] = {"role": role.value, "content": content}
        if role is ChatRole.TOOL:
            return {**said, "tool_call_id": message.tool_id}
        if message.name:
            said["name"] = message.name
        if message.tool_calls:
            said["tool_calls"] = [
                {"id": call.id, "type": "function", "function": _function(call)}
                for call in message.tool_calls
            ]
            said["content"] = content or None
        return said


def _settings(request: ConverseRequest, max_tokens: int | None) -> Iterator[tuple[str, Any]]:
    if request.temperature is not None:
        yield "temperature", request.temperature
    if (most := request.max_tokens or max_tokens) is not None:
        yield "max_completion_tokens", most
    if request.tools:
        yield "tools", [_tool(tool) for tool in request.tools]
        choice = request.tool_choice or "auto"
        plain = choice in ("auto", "none", "required")
        yield "tool_choice", choice if plain else {"type": "function", "function": {"name": choice}}
    if request.response_format is not None:
        yield "response_format", _format(request.response_format)
    if request.cache_retention is not None and request.cache_retention > _LONG:
        yield "prompt_cache_retention", "24h"  # what is shorter the API does by itself


def _format(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema, or a whole `response_format` in OpenAI's own form, which passes as it is."""
    if schema.get("type") in ("json_schema", "json_object", "text"):
        return schema
    name = text(schema.get("title")) or "response"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": {key: value for key, value in function.items() if value}}


def _function(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def _choice(choice: Mapping[str, Any]) -> ConverseChoice:
    message = record(choice.get("message"))
    calls = []
    for one in items(message.get("tool_calls")):
        function = record(one.get("function"))
        calls.append(
            ToolCall(text(function.get("name")), text(function.get("arguments")), text(one.get("id")))
        )
    said = text(message.get("content")) or text(message.get("refusal"))
    return ConverseChoice(said, text(choice.get("finish_reason")), number(choice.get("index")), calls)


def _usage(value: Any) -> ConverseUsage | None:
    if not isinstance(value, dict):
        return None
    return ConverseUsage(
        number(value.get("prompt_tokens")),
        number(value.get("completion_tokens")),
        number(value.get("total_tokens")),
        cached_tokens=number(record(value.get("prompt_tokens_details")).get("cached_tokens")),
        reasoning_tokens=number(record(value.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def _address(options: Options, model: str) -> tuple[str, dict[str, str]]:
    """The URL and the headers that a component's requests have."""
    base = (options.endpoint or _ENDPOINT).rstrip("/")
    if options.api_type == "azure":
        path = f"/openai/deployments/{quote(model, safe='')}/chat/completions"
        url = f"{base}{path}?api-version={quote(options.api_version, safe='')}"
        return url, {"api-key": options.key}
    return f"{base}/chat/completions", {"authorization": f"Bearer {options.key}"}


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Conversation]:
    model = options.model or context.env.get("OPENAI_MODEL") or _MODEL
    url, headers = _address(options, model)
    async with open_client(url, headers, options.key) as client:
        developer = options.api_type == "azure" or not options.endpoint
        talk = OpenAI(client, model, options.max_tokens, developer=developer)
        yield cached(talk, options.response_cache_ttl)


driver: Driver[Conversation] = Driver(
    type="conversation.openai",
    metadata=Options,
    open=_open,
    summary="OpenAI, Azure OpenAI and every endpoint that speaks chat completions.",
)
