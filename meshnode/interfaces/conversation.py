"""Conversation: the Protocol of language models and its value types.

Errors: `ComponentUnavailable` (worth a retry), `ConversationError` for the rest, with the status that the
model's answer stands for; `InvalidArgument` for a request that can never be right.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

__all__ = [
    "ChatMessage",
    "ChatRole",
    "Conversation",
    "ConverseChoice",
    "ConverseOutput",
    "ConverseRequest",
    "ConverseUsage",
    "Tool",
    "ToolCall",
]


class ChatRole(enum.Enum):
    """Who speaks. A `TOOL` message is a tool's result."""

    DEVELOPER = "developer"
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@frozen
class ToolCall:
    """A call that the model asks for; `arguments` is JSON as the model wrote it."""

    name: str
    arguments: str = ""
    id: str = ""


@frozen
class ChatMessage:
    """One message. `tool_calls` belong to `ASSISTANT`; `tool_id` (the call's id) to `TOOL`, whose `name` is
    the tool's.
    """

    role: ChatRole
    texts: Sequence[str] = ()
    name: str = ""
    tool_calls: Sequence[ToolCall] = ()
    tool_id: str = ""


@frozen
class Tool:
    """A function that the model may ask for; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(factory=dict)


@frozen
class ConverseRequest:
    """What a model is asked. `tool_choice` is `auto`, `none`, `required`, the name of one of `tools`, or
    empty. `response_format` is a JSON schema. `cache_retention` is how long the provider is asked to keep the
    prompt's beginning at hand. `temperature` and the like are None where the request says nothing.
    """

    messages: Sequence[ChatMessage]
    tools: Sequence[Tool] = ()
    tool_choice: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    response_format: Mapping[str, Any] | None = None
    cache_retention: timedelta | None = None
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class ConverseChoice:
    """`finish_reason` in OpenAI's words: `stop`, `length`, `tool_calls`, `content_filter`."""

    text: str = ""
    finish_reason: str = "stop"
    index: int = 0
    tool_calls: Sequence[ToolCall] = ()


@frozen
class ConverseUsage:
    """Tokens, as the provider counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@frozen
class ConverseOutput:
    """A model's answer. `model` is the one that gave it, empty where that is not known."""

    choices: Sequence[ConverseChoice]
    model: str = ""
    usage: ConverseUsage | None = None


@runtime_checkable
class Conversation(Protocol):
    """What a conversation driver yields. Calls run side by side; a cancelled one stops asking."""

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]: ...
