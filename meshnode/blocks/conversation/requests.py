"""From the two wire requests to what a driver is asked; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from meshnode.blocks.conversation.scrub import scrub
from meshnode.interfaces import ChatMessage, ChatRole, ConverseRequest, Tool, ToolCall
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["InvalidParams", "MissingInputs", "length_of", "request_alpha1", "request_alpha2"]

_ROLES = {
    "system": ChatRole.SYSTEM,
    "assistant": ChatRole.ASSISTANT,
    "ai": ChatRole.ASSISTANT,
    "tool": ChatRole.TOOL,
    "function": ChatRole.TOOL,
}
"""The first call's roles; whatever else it is called is the user."""

_CHOICES = "must be 'auto', 'none', 'required' or the name of one of the tools"


class MissingInputs(Exception):
    """There is nothing to say to the model."""

    def __init__(self) -> None:
        super().__init__("missing inputs in request")


class InvalidParams(Exception):
    """The message says what is wrong."""

    def __init__(self, what: str) -> None:
        super().__init__(f"invalid params: {what}")


def request_alpha1(request: runtime.ConversationRequest) -> ConverseRequest:
    """Raises `MissingInputs`."""
    if not request.inputs:
        raise MissingInputs
    messages = [
        ChatMessage(
            _ROLES.get(one.role or "", ChatRole.USER), (scrub(one.content) if one.scrub_pii else one.content,)
        )
        for one in request.inputs
    ]
    return ConverseRequest(messages, temperature=request.temperature, metadata=request.metadata)


def request_alpha2(request: runtime.ConversationRequestAlpha2) -> ConverseRequest:
    """Raises `MissingInputs`, `InvalidParams`."""
    if not request.inputs:
        raise MissingInputs
    messages = [
        _message(message, clean=bool(one.scrub_pii)) for one in request.inputs for message in one.messages
    ]
    if not messages:
        raise MissingInputs
    if request.max_tokens is not None and request.max_tokens <= 0:
        raise InvalidParams("max_tokens must be above 0")
    tools = list(_tools(request.tools))
    return ConverseRequest(
        messages,
        tools=tools,
        tool_choice=_tool_choice(request.tool_choice or "", tools),
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        response_format=None if request.response_format is None else _json(request.response_format),
        cache_retention=request.prompt_cache_retention,
        metadata=request.metadata,
    )


def _message(message: runtime.ConversationMessage, *, clean: bool) -> ChatMessage:
    if (one := message.of_assistant) is not None:
        calls = [_tool_call(call) for call in one.tool_calls]
        return ChatMessage(ChatRole.ASSISTANT, _texts(one.content, clean), one.name or "", calls)
    if (result := message.of_tool) is not None:
        texts = _texts(result.content, clean)
        return ChatMessage(ChatRole.TOOL, texts, result.name, tool_id=result.tool_id or "")
    speakers = (
        (ChatRole.DEVELOPER, message.of_developer),
        (ChatRole.SYSTEM, message.of_system),
        (ChatRole.USER, message.of_user),
    )
    for role, said in speakers:
        if said is not None:
            return ChatMessage(role, _texts(said.content, clean), said.name or "")
    raise InvalidParams("message type cannot be nil")


def length_of(message: runtime.ConversationMessage) -> int:
    """Characters of what is said in it."""
    said = (message.of_assistant, message.of_tool, message.of_developer, message.of_system, message.of_user)
    return sum(len(part.text) for one in said if one is not None for part in one.content)


def _texts(content: Iterable[runtime.ConversationMessageContent], clean: bool) -> Sequence[str]:
    return tuple(scrub(one.text) if clean else one.text for one in content)


def _tool_call(call: runtime.ConversationToolCalls) -> ToolCall:
    if call.function is None:
        raise InvalidParams("tool types cannot be nil")
    return ToolCall(call.function.name, call.function.arguments, call.id or "")


def _tools(tools: Iterable[runtime.ConversationTools]) -> Iterator[Tool]:
    for tool in tools:
        if (one := tool.function) is not None:
            parameters = {} if one.parameters is None else _json(one.parameters)
            yield Tool(one.name, one.description or "", parameters)


def _tool_choice(choice: str, tools: Sequence[Tool]) -> str:
    if not choice:
        return "auto" if tools else ""
    if choice in ("auto", "none") or (choice == "required" and tools):
        return choice
    if choice != "required" and any(tool.name == choice for tool in tools):
        return choice
    raise InvalidParams(f"tool choice {_CHOICES}")


def _json(struct: Any) -> Mapping[str, Any]:
    try:
        plain = struct.to_dict()
    except ValueError as error:
        raise InvalidParams(str(error)) from None
    return {name: _whole(value) for name, value in plain.items()}


def _whole(value: Any) -> Any:
    """Numbers of a Struct are floats; providers that check schemas want `minimum: 1`, not `1.0`."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
