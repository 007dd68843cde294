"""The conversation API through real nodes, in the in-process mesh on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from meshnode.blocks.conversation.scrub import scrub
from meshnode.errors import ConversationError
from meshnode.interfaces import (
    ChatRole,
    ConverseChoice,
    ConverseOutput,
    ConverseRequest,
    ConverseUsage,
    Driver,
    DriverContext,
    ToolCall,
)
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Any as AnyMessage
from meshnode.wire.google.protobuf import Struct, Value
from meshnode.wire.google.rpc import ErrorInfo
from meshnode.wire.google.rpc import Status as RpcStatus


class Speaker:
    """A model that the test holds in its hand."""

    def __init__(self) -> None:
        self.requests: list[ConverseRequest] = []
        self.failures: list[Exception] = []
        self.outputs: Sequence[ConverseOutput] = [ConverseOutput([ConverseChoice("hi")])]

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]:
        self.requests.append(request)
        if self.failures:
            raise self.failures.pop(0)
        return self.outputs


@frozen
class Options:
    pass


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
async def mesh(speaker: Speaker) -> AsyncIterator[Mesh]:
    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[Speaker]:
        yield speaker

    driver = Driver("conversation.test", Options, opened)
    async with open_mesh(1, registry=Registry.discover([driver])) as mesh:
        yield mesh


MODEL = """
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: model}
spec: {type: conversation.test, version: v1}
"""
RETRIED = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies: {retries: {three: {policy: constant, duration: 1s, maxRetries: 3}}}
  targets: {components: {model: {outbound: {retry: three}}}}
"""


def user(*texts: str) -> runtime.ConversationMessage:
    content = [runtime.ConversationMessageContent(text=one) for one in texts]
    return runtime.ConversationMessage(of_user=runtime.ConversationMessageOfUser(content=content))


def alpha2(*messages: runtime.ConversationMessage, **fields: Any) -> runtime.ConversationRequestAlpha2:
    said = [runtime.ConversationInputAlpha2(messages=list(messages), scrub_pii=fields.pop("clean", None))]
    return runtime.ConversationRequestAlpha2(**{"name": "model", "inputs": said, **fields})


def tool(name: str, parameters: dict[str, Any] | None = None) -> runtime.ConversationTools:
    struct = None if parameters is None else Struct.from_dict(parameters)
    function = runtime.ConversationToolsFunction(name=name, description="does it", parameters=struct)
    return runtime.ConversationTools(function=function)


async def refused(call: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value


def reason(error: GRPCError) -> str:
    for detail in RpcStatus.parse(error.details or b"").details:
        if detail.type_url.endswith("ErrorInfo"):
            return ErrorInfo.parse(detail.value).reason
    return ""


async def test_the_first_call(mesh: Mesh, speaker: Speaker, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=MODEL)
    speaker.outputs = [ConverseOutput([ConverseChoice("write to ann@example.com"), ConverseChoice("no")])]
    roles = ("system", "ai", "tool", "human", None)
    answer = await node.dapr.converse_alpha_1(
        runtime.ConversationRequest(
            name="model",
            context_id="room",
            inputs=[
                *(runtime.ConversationInput(content="x", role=role) for role in roles),
                runtime.ConversationInput(content="I am bob@example.com", scrub_pii=True),
            ],
            parameters={"p": AnyMessage(type_url="type", value=b"1")},
            metadata={"model": "foo"},
            scrub_pii=True,
            temperature=0.5,
        )
    )
    assert answer.context_id == "room"
    (output,) = answer.outputs
    assert output.result == "write to <EMAIL_ADDRESS>"
    assert output.parameters["p"].value == b"1"
    (seen,) = speaker.requests
    assert [one.role for one in seen.messages] == [
        ChatRole.SYSTEM, ChatRole.ASSISTANT, ChatRole.TOOL, ChatRole.USER, ChatRole.USER, ChatRole.USER,
    ]  # fmt: skip
    assert seen.messages[-1].texts == ("I am <EMAIL_ADDRESS>",)
    assert (seen.temperature, seen.metadata) == (0.5, {"model": "foo"})


async def test_the_second_call(mesh: Mesh, speaker: Speaker, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=MODEL)
    speaker.outputs = [
        ConverseOutput(
            [ConverseChoice("call 415-555-0134", "tool_calls", 0, [ToolCall("f", '{"a": 1}', "c2")])],
            "m-1",
            ConverseUsage(3, 4, 7, cached_tokens=2),
        )
    ]
    text = [runtime.ConversationMessageContent(text="t")]
    call = runtime.ConversationToolCalls(
        id="c1", function=runtime.ConversationToolCallsOfFunction(name="f", arguments="{}")
    )
    message = runtime.ConversationMessage
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 1, "enum": [1, 2.5, None]}},
    }
    answer = await node.dapr.converse_alpha_2(
        alpha2(
            message(of_system=runtime.ConversationMessageOfSystem(content=text)),
            message(of_developer=runtime.ConversationMessageOfDeveloper(content=text)),
            user("mail bob@example.com", "or not"),
            message(of_assistant=runtime.ConversationMessageOfAssistant(content=text, tool_calls=[call])),
            message(of_tool=runtime.ConversationMessageOfTool(tool_id="c1", name="f", content=text)),
            clean=True,
            context_id="room",
            scrub_pii=True,
            tools=[tool("f", schema)],
            tool_choice="f",
            response_format=Struct.from_dict(schema),
            max_tokens=9,
            prompt_cache_retention=timedelta(hours=2),
        )
    )
    assert answer.context_id == "room"
    (output,) = answer.outputs
    (choice,) = output.choices
    assert output.model == "m-1"
    assert (output.usage.total_tokens, output.usage.prompt_tokens_details.cached_tokens) == (7, 2)
    assert output.usage.completion_tokens_details is None
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "call <PHONE_NUMBER>")
    (called,) = choice.message.tool_calls
    assert (called.id, called.function.name, called.function.arguments) == ("c2", "f", '{"a": 1}')
    (seen,) = speaker.requests
    assert [one.role.value for one in seen.messages] == ["system", "developer", "user", "assistant", "tool"]
    assert seen.messages[2].texts == ("mail <EMAIL_ADDRESS>", "or not")
    assert seen.messages[3].tool_calls == [ToolCall("f", "{}", "c1")]
    assert (seen.messages[4].tool_id, seen.messages[4].name) == ("c1", "f")
    assert seen.tools[0].parameters == seen.response_format == schema
    assert type(seen.tools[0].parameters["properties"]["a"]["minimum"]) is int
    assert (seen.tool_choice, seen.max_tokens, seen.cache_retention) == ("f", 9, timedelta(hours=2))


@pytest.mark.parametrize(
    ("choice", "tools", "seen"),
    [("", [], ""), ("", ["f"], "auto"), ("none", [], "none"), ("required", ["f"], "required")],
)
async def test_choices_of_tools(
    mesh: Mesh, speaker: Speaker, autojump_clock: MockClock, choice: str, tools: list[str], seen: str
) -> None:
    node = await mesh.start("app", resources=MODEL)
    await node.dapr.converse_alpha_2(alpha2(user("x"), tools=list(map(tool, tools)), tool_choice=choice))
    assert speaker.requests[0].tool_choice == seen


@pytest.mark.parametrize(
    ("request_", "why", "words"),
    [
        (alpha2(user("x"), name="ghost"), "NOT_FOUND", "failed finding conversation component ghost"),
        (
            alpha2(inputs=[]),
            "MISSING_INPUTS",
            "component model: missing inputs in request",
        ),
        (alpha2(), "MISSING_INPUTS", "missing inputs"),
        (
            alpha2(runtime.ConversationMessage()),
            "INVALID_PARMS",
            "invalid params: message type",
        ),
        (alpha2(user("x"), tool_choice="required"), "INVALID_PARMS", "tool choice"),
        (alpha2(user("x"), tools=[tool("f")], tool_choice="g"), "INVALID_PARMS", "tool choice"),
        (alpha2(user("x"), max_tokens=0), "INVALID_PARMS", "max_tokens"),
        (alpha2(user("x"), response_format=Struct(fields={"a": Value()})), "INVALID_PARMS", "without a kind"),
    ],
)
async def test_what_cannot_be_asked(
    mesh: Mesh, speaker: Speaker, autojump_clock: MockClock, request_: Any, why: str, words: str
) -> None:
    node = await mesh.start("app", resources=MODEL)
    error = await refused(node.dapr.converse_alpha_2(request_))
    assert error.status is Status.INVALID_ARGUMENT
    assert words in (error.message or "")
    assert reason(error) == f"ERR_CONVERSATION_{why}"
    assert not speaker.requests


async def test_the_first_call_wants_inputs_and_a_component(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=MODEL)
    error = await refused(node.dapr.converse_alpha_1(runtime.ConversationRequest(name="model")))
    assert reason(error) == "ERR_CONVERSATION_MISSING_INPUTS"
    error = await refused(node.dapr.converse_alpha_1(runtime.ConversationRequest(name="ghost")))
    assert (error.status, reason(error)) == (Status.INVALID_ARGUMENT, "ERR_CONVERSATION_NOT_FOUND")


async def test_no_model_at_all(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    error = await refused(node.dapr.converse_alpha_2(alpha2(user("x"))))
    assert (error.status, reason(error)) == (Status.INVALID_ARGUMENT, "ERR_CONVERSATION_NOT_FOUND")


async def test_the_outbound_policy_holds_and_a_failure_keeps_its_status(
    mesh: Mesh, speaker: Speaker, autojump_clock: MockClock
) -> None:
    busy = ConversationError("too much", status=Status.RESOURCE_EXHAUSTED)
    node = await mesh.start("app", resources=MODEL + RETRIED)
    speaker.failures = [busy] * 3
    assert (await node.dapr.converse_alpha_2(alpha2(user("x")))).outputs
    assert len(speaker.requests) == 4
    speaker.failures = [busy] * 4
    error = await refused(node.dapr.converse_alpha_2(alpha2(user("x"))))
    assert error.status is Status.RESOURCE_EXHAUSTED
    assert error.message == "failed conversing with component model: too much"
    assert reason(error) == "ERR_CONVERSATION_INVOKE"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mail ann.lee+x@mail.example.co.uk, please", "mail <EMAIL_ADDRESS>, please"),
        ("call +919140520809 or (415) 555-0134.", "call <PHONE_NUMBER> or <PHONE_NUMBER>."),
        ("card 4263 9826 4026 9299, 6011553157232994", "card <CREDIT_CARD>, <CREDIT_CARD>"),
        ("my 488-23-3729", "my <US_SSN>"),
        ("at 10.0.0.1, ::1 and 2001:db8::8a2e:370:7334.", "at <IP_ADDRESS>, <IP_ADDRESS> and <IP_ADDRESS>."),
        ("fe80:0:0:0:1:2:3:4", "<IP_ADDRESS>"),
        ("at 12 Long Hill Road, Salem 22132", "at <STREET_ADDRESS>, Salem <ZIP_CODE>"),
        ("ISBN 978-3-16-148410-0; ISBN: 0-306-40615-2", "<ISBN>; <ISBN>"),
        ("00:1A:2b:3c:4D:5e", "<MAC_ADDRESS>"),
        ("d41d8cd98f00b204e9800998ecf8427e", "<MD5_HEX>"),
        ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "<SHA1_HEX>"),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "<SHA_256_HEX>"),
        ("at 12:30:45 in 2024, 1,250 times std::move v1.2.3.4.5", None),
    ],
)
def test_scrubbing(text: str, clean: str | None) -> None:
    assert scrub(text) == (text if clean is None else clean)


@given(st.text())
def test_scrubbing_takes_any_text_and_is_done_once(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


@pytest.mark.parametrize("piece", ["1", "1 ", "a", "1.", "a@", "::", "+1(", "1 a ", "f:", "978 "])
def test_scrubbing_a_long_hostile_text_takes_no_longer_than_its_length_asks(piece: str) -> None:
    scrub(piece * 20_000)  # the suite's own time limit fails a quadratic expression


async def test_a_long_text_is_scrubbed_beside_the_event_loop(mesh: Mesh, speaker: Speaker) -> None:
    text = "bob@example.com writes\nfrom 10.0.0.1: " + "words and more words\n" * 20_000
    speaker.outputs = [ConverseOutput([ConverseChoice(text)])]
    node = await mesh.start("app", resources=MODEL)
    request = runtime.ConversationRequest(
        name="model", inputs=[runtime.ConversationInput(content=text, scrub_pii=True)], scrub_pii=True
    )
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.sleep(0.001)
            passes += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        answer = await node.dapr.converse_alpha_1(request)
        nursery.cancel_scope.cancel()
    clean = text.replace("bob@example.com", "<EMAIL_ADDRESS>").replace("10.0.0.1", "<IP_ADDRESS>")
    assert [message.texts for message in speaker.requests[0].messages] == [(clean,)]
    assert [one.result for one in answer.outputs] == [clean]
    assert passes > 1  # on the event loop it would be none while a text is scrubbed


async def test_a_caller_that_goes_away_ends_the_asking(
    mesh: Mesh, speaker: Speaker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=MODEL)
    began, ended = trio.Event(), trio.Event()

    async def forever(request: ConverseRequest) -> Sequence[ConverseOutput]:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    speaker.converse = forever  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.dapr.converse_alpha_2, alpha2(user("x")))
        await began.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await ended.wait()
    error = await refused(node.dapr.converse_alpha_2(alpha2(user("x")), timeout=2))
    assert error.status is Status.DEADLINE_EXCEEDED
