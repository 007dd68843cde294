"""The conversation API through the SDK from PyPI against a real node, and a provider of this test's own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.processes import Node, healthz, node

SDK_DEPRECATES = pytest.mark.filterwarnings("ignore:.* deprecated. :DeprecationWarning")
KEY = "sk-very-secret"
RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: echo}
spec: {type: conversation.echo, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: openai}
spec:
  type: conversation.openai
  version: v1
  metadata:
    - {name: key, value: KEY}
    - {name: endpoint, value: URL}
    - {name: cacheTTL, value: 10m}
"""


class Provider(BaseHTTPRequestHandler):
    """Answers a question with a tool's call, a tool's result with a text, and the question `no` with 429."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        last = body["messages"][-1]
        message: dict[str, Any] = {"role": "assistant", "content": "sunny, ask ann@example.com"}
        reason, status = "stop", 429 if last["content"] == "no" else 200
        if body.get("tools") and last["role"] == "user":
            function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Rome"}'}
            message = {
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            }
            reason = "tool_calls"
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
        choice = {"index": 0, "finish_reason": reason, "message": message}
        answer: dict[str, Any] = {"model": "gpt", "choices": [choice], "usage": usage}
        if status != 200:
            answer = {"error": {"message": f"slow down, {KEY}"}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def provider() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    seen: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Provider,), {"seen": seen}))
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, list[dict[str, Any]]]]:
    with ExitStack() as stack:
        url, seen = stack.enter_context(provider())
        resources = RESOURCES.replace("KEY", KEY).replace("URL", url)
        running = stack.enter_context(node("talker", tmp_path, resources=resources))
        port = stack.enter_context(healthz())
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        monkeypatch.setattr(settings, "DAPR_GRPC_PORT", running.port)
        yield running, seen


@SDK_DEPRECATES
def test_python(asked: tuple[Node, list[dict[str, Any]]]) -> None:
    from dapr.clients import DaprClient
    from dapr.clients.exceptions import DaprGrpcError
    from dapr.clients.grpc import conversation as sdk

    running, seen = asked
    with DaprClient(address=running.address) as client:
        inputs = [sdk.ConversationInput(content="I am bob@example.com", role="user", scrub_pii=True)]
        metadata = {"model": "foo", "key": "authKey", "cacheTTL": "10m"}
        first = client.converse_alpha1(
            "echo", inputs, context_id="chat", metadata=metadata, temperature=0.7, parameters={"a": "b"}
        )
        assert [one.result for one in first.outputs] == ["I am <EMAIL_ADDRESS>"]
        assert first.context_id == "chat"

        weather = sdk.ConversationTools(
            function=sdk.ConversationToolsFunction(
                name="get_weather",
                description="The weather",
                parameters={"type": "object", "properties": {"city": {"type": "string"}}},
            )
        )
        question = sdk.create_user_message("how is the weather in Rome?")

        def ask(*messages: Any, **options: Any) -> Any:
            said = [sdk.ConversationInputAlpha2(messages=list(messages))]
            return client.converse_alpha2("openai", said, **options)

        answer = ask(question, tools=[weather], tool_choice="auto", context_id="chat")
        (choice,) = answer.outputs[0].choices
        assert (answer.context_id, choice.finish_reason) == ("chat", "tool_calls")
        (call,) = choice.message.tool_calls
        assert (call.id, call.function.name, call.function.arguments) == (
            "c1", "get_weather", '{"city": "Rome"}',
        )  # fmt: skip
        history = [question, *answer.to_assistant_messages()]
        result = sdk.create_tool_message(tool_id=call.id, name=call.function.name, content="sunny")
        for _ in range(2):  # the second time it is known
            answer = ask(*history, result, tools=[weather], scrub_pii=True)
            assert answer.outputs[0].choices[0].message.content == "sunny, ask <EMAIL_ADDRESS>"
        assert [one["role"] for one in seen[1]["messages"]] == ["user", "assistant", "tool"]
        assert len(seen) == 2

        with pytest.raises(DaprGrpcError) as refused:
            ask(sdk.create_user_message("no"))
        assert refused.value.code().name == "RESOURCE_EXHAUSTED"
        assert refused.value.error_code() == "ERR_CONVERSATION_INVOKE"
        with pytest.raises(DaprGrpcError) as unknown:
            client.converse_alpha2("ghost", [sdk.ConversationInputAlpha2(messages=[question])])
        assert unknown.value.code().name == "INVALID_ARGUMENT"
        assert unknown.value.error_code() == "ERR_CONVERSATION_NOT_FOUND"
    assert KEY not in running.process.output + str(refused.value)


@SDK_DEPRECATES
def test_python_aio(asked: tuple[Node, list[dict[str, Any]]]) -> None:
    from dapr.aio.clients import DaprClient
    from dapr.clients.exceptions import DaprGrpcError
    from dapr.clients.grpc import conversation as sdk

    running, seen = asked

    async def use() -> None:
        async with DaprClient(address=running.address) as client:
            inputs = [sdk.ConversationInput(content="I am bob@example.com", role="user", scrub_pii=True)]
            first = await client.converse_alpha1("echo", inputs, context_id="chat")
            assert [one.result for one in first.outputs] == ["I am <EMAIL_ADDRESS>"]
            assert first.context_id == "chat"

            async def ask(text: str, store: str = "openai", **options: Any) -> Any:
                said = [sdk.ConversationInputAlpha2(messages=[sdk.create_user_message(text)])]
                return await client.converse_alpha2(store, said, **options)

            for _ in range(2):  # the second time it is known
                answer = await ask("how is the weather?", scrub_pii=True)
                assert answer.outputs[0].choices[0].message.content == "sunny, ask <EMAIL_ADDRESS>"
            assert len(seen) == 1
            with pytest.raises(DaprGrpcError) as refused:
                await ask("no")
            assert refused.value.code().name == "RESOURCE_EXHAUSTED"
            with pytest.raises(DaprGrpcError) as unknown:
                await ask("hello", "ghost")
            assert unknown.value.error_code() == "ERR_CONVERSATION_NOT_FOUND"

    asyncio.run(use())
