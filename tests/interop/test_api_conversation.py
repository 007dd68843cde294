"""Conversation at a daprd and at a meshnode, request by request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dapr.proto.runtime.v1 import ai_pb2 as pb
from support.install_daprd import daprd_has
from support.sidecars import Allowed, Case, Pair, compare, sidecars

pytestmark = pytest.mark.skipif(
    not daprd_has(b"conversation/echo"), reason="daprd with conversation.echo is not installed"
)

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: echo}
spec: {type: conversation.echo, version: v1, metadata: []}
"""
NO_MODEL = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec: {type: state.in-memory, version: v1, metadata: []}
"""


def first(name: str, *texts: str) -> pb.ConversationRequest:
    return pb.ConversationRequest(name=name, inputs=[pb.ConversationInput(content=text) for text in texts])


def said(text: str) -> pb.ConversationMessage:
    content = pb.ConversationMessageContent(text=text)
    return pb.ConversationMessage(of_user=pb.ConversationMessageOfUser(content=[content]))


def second(name: str, *inputs: pb.ConversationInputAlpha2, **more: object) -> pb.ConversationRequestAlpha2:
    return pb.ConversationRequestAlpha2(name=name, inputs=inputs, **more)


def one(*messages: pb.ConversationMessage) -> pb.ConversationInputAlpha2:
    return pb.ConversationInputAlpha2(messages=messages)


def no_messages() -> Allowed:
    message = "failed conversing with component echo: missing inputs in request"
    about = {"resource_type": "conversation", "resource_name": "echo", "description": message}
    info = {"reason": "ERR_CONVERSATION_MISSING_INPUTS", "domain": "dapr.io"}
    return Allowed(
        "inputs without a message say nothing to a model, whichever it is; daprd leaves it to the component",
        {
            "status": "INVALID_ARGUMENT",
            "message": message,
            "details": [("ErrorInfo", info), ("ResourceInfo", about)],
            "response": None,
        },
    )


def bad_choice() -> Allowed:
    choices = "must be 'auto', 'none', 'required' or the name of one of the tools"
    message = f"failed conversing with component echo: invalid params: tool choice {choices}"
    about = {"resource_type": "conversation", "resource_name": "echo", "description": message}
    info = {"reason": "ERR_CONVERSATION_INVALID_PARMS", "domain": "dapr.io"}
    return Allowed(
        "a choice that no tool answers to is told before a provider refuses it",
        {
            "status": "INVALID_ARGUMENT",
            "message": message,
            "details": [("ErrorInfo", info), ("ResourceInfo", about)],
            "response": None,
        },
    )


NOBODY = Allowed(
    "daprd's format of this message lacks its place for the cause",
    {"message": "failed conversing with component echo: invalid params: message type cannot be nil"},
)
CASES = [
    Case("first", "ConverseAlpha1", first("echo", "hello")),
    Case("first, two inputs", "ConverseAlpha1", first("echo", "hello", "again")),
    Case("first, no inputs", "ConverseAlpha1", first("echo")),
    Case("first, empty input", "ConverseAlpha1", first("echo", "")),
    Case("first, unknown model", "ConverseAlpha1", first("unknown", "hello")),
    Case("first, no model", "ConverseAlpha1", first("", "hello")),
    Case("second", "ConverseAlpha2", second("echo", one(said("hello")))),
    Case("second, two messages", "ConverseAlpha2", second("echo", one(said("hello"), said("again")))),
    Case("second, two inputs", "ConverseAlpha2", second("echo", one(said("hello")), one(said("again")))),
    Case("second, no inputs", "ConverseAlpha2", second("echo")),
    Case("second, no messages", "ConverseAlpha2", second("echo", one()), no_messages()),
    Case("second, empty message", "ConverseAlpha2", second("echo", one(said("")))),
    Case(
        "second, message of nobody", "ConverseAlpha2", second("echo", one(pb.ConversationMessage())), NOBODY
    ),
    Case("second, unknown model", "ConverseAlpha2", second("unknown", one(said("hello")))),
    Case(
        "second, unknown tool choice",
        "ConverseAlpha2",
        second("echo", one(said("hello")), tool_choice="must"),
        bad_choice(),
    ),
]
NONE = [
    Case("first", "ConverseAlpha1", first("echo", "hello")),
    Case("second", "ConverseAlpha2", second("echo", one(said("hello")))),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-conversation"), RESOURCES) as pair:
        yield pair


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-bare"), NO_MODEL) as pair:
        yield pair


@pytest.mark.parametrize("case", CASES, ids=str)
def test_request(full: Pair, case: Case) -> None:
    compare(full, case)


@pytest.mark.parametrize("case", NONE, ids=str)
def test_no_component(bare: Pair, case: Case) -> None:
    compare(bare, case)
