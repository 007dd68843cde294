"""The conversation drivers against a server of this test's own that speaks each provider's API."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_conversation import anthropic, echo, ollama, openai
from meshnode_conversation._cache import Cached
from support.redis_servers import free_port

from meshnode.errors import ComponentUnavailable, ConfigError, ConversationError, InvalidArgument, Status
from meshnode.interfaces import (
    ChatMessage,
    ChatRole,
    ConverseChoice,
    ConverseOutput,
    ConverseRequest,
    ConverseUsage,
    DriverContext,
    Tool,
    ToolCall,
)
from meshnode.testing.conformance import conversation

KEY = "sk-very-secret"
CONTEXT = DriverContext("model", "app", env={})
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool("get_weather", "The weather", SCHEMA)
HISTORY = [
    ChatMessage(ChatRole.SYSTEM, ("be brief",)),
    ChatMessage(ChatRole.DEVELOPER, ("in English",)),
    ChatMessage(ChatRole.USER, ("how is it", "in Rome?"), name="ann"),
    ChatMessage(ChatRole.ASSISTANT, (), tool_calls=(ToolCall("get_weather", '{"city": "Rome"}', "c1"),)),
    ChatMessage(ChatRole.TOOL, ("sunny",), "get_weather", tool_id="c1"),
    ChatMessage(ChatRole.USER, ("and you?",)),
]
FULL = ConverseRequest(HISTORY, [WEATHER], "get_weather", 0.5, 100, SCHEMA, timedelta(hours=2))
HELLO = ConverseRequest([ChatMessage(ChatRole.USER, ("hello",))])


class Provider:
    """Answers as the API at that path does; `status` and `raw` make it do something else."""

    def __init__(self):
        self.seen, self.connections = [], 0
        self.status, self.raw, self.slow = 200, None, False
        self.asked, self.gone = trio.Event(), trio.Event()

    async def serve(self, stream):
        self.connections += 1
        data = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in data:
                    piece = await self._receive(stream)
                    if not piece:
                        self.gone.set()
                        return
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                start, *lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                while len(data) < int(headers["content-length"]):
                    data += await self._receive(stream)
                body, data = json.loads(data), b""
                path = start.split()[1]
                self.seen.append((path, headers, body))
                self.asked.set()
                if self.slow:
                    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n{")
                    continue
                answer = self.raw if self.raw is not None else json.dumps(reply(path, body)).encode()
                await stream.send_all(
                    b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (self.status, len(answer), answer)
                )

    async def _receive(self, stream):
        try:
            return await stream.receive_some()
        except trio.BrokenResourceError:
            return b""


def reply(path, body):
    calls = bool(body.get("tools")) and body.get("tool_choice") not in ("none", {"type": "none"})
    if path.endswith("/messages"):
        tool = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}}
        said = {"type": "text", "text": "hi"}
        usage = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}
        reason = "tool_use" if calls else "end_turn"
        return {
            "content": [said, tool] if calls else [said],
            "model": "m",
            "stop_reason": reason,
            "usage": usage,
        }
    if path.endswith("/api/chat"):
        message = {"role": "assistant", "content": "hi"}
        if calls:
            message["tool_calls"] = [{"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 4}
        return {"model": "m", "message": message, **done}
    message = {"role": "assistant", "content": "hi"}
    if calls:
        function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
        message["tool_calls"] = [{"id": "t1", "type": "function", "function": function}]
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    usage["prompt_tokens_details"] = {"cached_tokens": 2}
    choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}
    return {"choices": [choice], "model": "m", "usage": usage}


@pytest.fixture
async def provider(nursery):
    provider = Provider()
    listeners = await nursery.start(partial(trio.serve_tcp, provider.serve, 0, host="127.0.0.1"))
    provider.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    yield provider
    nursery.cancel_scope.cancel()


MODULES = {"openai": openai, "anthropic": anthropic, "ollama": ollama}


@asynccontextmanager
async def opened(kind, url, context=CONTEXT, **options):
    module = MODULES[kind]
    if kind != "ollama":
        options = {"key": KEY, **options}
    async with module.driver.open(module.Options(endpoint=url, **options), context) as model:
        yield model


@pytest.mark.parametrize("check", conversation.CHECKS, ids=str)
@pytest.mark.parametrize("kind", MODULES)
async def test_conformance(check, kind, provider):
    await check.run(conversation.ConversationSetup(lambda: opened(kind, provider.url)))


@pytest.mark.parametrize("check", conversation.CHECKS, ids=str)
async def test_conformance_of_the_echo(check):
    setup = conversation.ConversationSetup(
        lambda: echo.driver.open(echo.Options(), CONTEXT), json_arguments=False
    )
    await check.run(setup)


async def test_openai(provider):
    async with opened("openai", provider.url + "/v1/", model="gpt") as model:
        (output,) = await model.converse(FULL)
    assert output == ConverseOutput(
        [ConverseChoice("hi", "tool_calls", 0, [ToolCall("get_weather", '{"city": "Rome"}', "t1")])],
        "m",
        ConverseUsage(5, 4, 9, cached_tokens=2),
    )
    ((path, headers, body),) = provider.seen
    assert (path, headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    parts = [{"type": "text", "text": "how is it"}, {"type": "text", "text": "in Rome?"}]
    assert body == {
        "model": "gpt",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "system", "content": "in English"},
            {"role": "user", "content": parts, "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
            {"role": "user", "content": "and you?"},
        ],
        "temperature": 0.5,
        "max_completion_tokens": 100,
        "tools": [
            {
                "type": "function",
                "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA}},
        "prompt_cache_retention": "24h",
    }


async def test_azure(provider):
    options = {"api_type": "azure", "api_version": "2025-01-01-preview", "model": "my model"}
    async with opened("openai", provider.url, **options) as model:
        await model.converse(ConverseRequest([ChatMessage(ChatRole.DEVELOPER, ("x",))]))
    ((path, headers, body),) = provider.seen
    assert path == "/openai/deployments/my%20model/chat/completions?api-version=2025-01-01-preview"
    assert headers["api-key"] == KEY
    assert body["messages"][0]["role"] == "developer"


async def test_anthropic(provider):
    async with opened("anthropic", provider.url + "/v1", model="claude") as model:
        (output,) = await model.converse(FULL)
    assert output == ConverseOutput(
        [ConverseChoice("hi", "tool_calls", 0, [ToolCall("get_weather", '{"city": "Rome"}', "t1")])],
        "m",
        ConverseUsage(5, 4, 9, cached_tokens=2),
    )
    ((path, headers, body),) = provider.seen
    assert path == "/v1/messages"
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    mark = {"type": "ephemeral", "ttl": "1h"}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]}
    call = {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Rome"}}
    parts = [{"type": "text", "text": "how is it"}, {"type": "text", "text": "in Rome?"}]
    assert body == {
        "model": "claude",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "in English"}],
        "messages": [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [call]},
            {
                "role": "user",
                "content": [result, {"type": "text", "text": "and you?", "cache_control": mark}],
            },
        ],
        "temperature": 0.5,
        "tools": [{"name": "get_weather", "description": "The weather", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "get_weather"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }


async def test_ollama(provider):
    async with opened("ollama", provider.url, model="llama") as model:
        (output,) = await model.converse(FULL)
    assert output == ConverseOutput(
        [ConverseChoice("hi", "tool_calls", 0, [ToolCall("get_weather", '{"city": "Rome"}', "0")])],
        "m",
        ConverseUsage(5, 4, 9),
    )
    ((path, headers, body),) = provider.seen
    assert path == "/api/chat"
    assert "authorization" not in headers
    function = {"name": "get_weather", "arguments": {"city": "Rome"}}
    assert body == {
        "model": "llama",
        "stream": False,
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "system", "content": "in English"},
            {"role": "user", "content": "how is it\nin Rome?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": function}]},
            {"role": "tool", "content": "sunny", "tool_name": "get_weather"},
            {"role": "user", "content": "and you?"},
        ],
        "options": {"temperature": 0.5, "num_predict": 100},
        "tools": [
            {
                "type": "function",
                "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA},
            }
        ],
        "format": SCHEMA,
    }


async def test_echo():
    async with echo.driver.open(echo.Options(model="parrot"), CONTEXT) as model:
        (output,) = await model.converse(ConverseRequest(HISTORY[2:], [WEATHER], "auto"))
        (plain,) = await model.converse(ConverseRequest(HISTORY[:1], [WEATHER], "none"))
    (choice,) = output.choices
    assert choice.text.split("\n") == [
        "how is it",
        "in Rome?",
        "Tool Response for tool ID 'c1' with name 'get_weather': sunny",
        "and you?",
    ]
    assert choice.tool_calls == [HISTORY[3].tool_calls[0], ToolCall("get_weather", "city", "0")]
    assert (choice.finish_reason, output.model) == ("tool_calls", "parrot")
    assert plain.choices[0] == ConverseChoice("be brief", tool_calls=[])
    assert plain.usage == ConverseUsage(2, 2, 4)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize(
    ("answered", "status"),
    [
        (400, Status.INVALID_ARGUMENT),
        (401, Status.UNAUTHENTICATED),
        (403, Status.PERMISSION_DENIED),
        (404, Status.NOT_FOUND),
        (429, Status.RESOURCE_EXHAUSTED),
        (500, Status.INTERNAL),
        (503, Status.UNAVAILABLE),
        (302, Status.INTERNAL),
    ],
)
async def test_refusals(kind, provider, answered, status, caplog):
    provider.status = answered
    provider.raw = json.dumps({"error": {"message": f"no such luck, {KEY}"}}).encode()
    async with opened(kind, provider.url) as model:
        with pytest.raises(ConversationError) as caught:
            await model.converse(HELLO)
    assert caught.value.code is status
    assert f"answered {answered}: no such luck" in str(caught.value)
    if kind != "ollama":
        assert KEY not in str(caught.value) + repr(caught.value) + caplog.text
    assert len(provider.seen) == 1  # repeating is the policy's business


@pytest.mark.parametrize("raw", [b"not json", b"[]", b"{}", b"\xff", b"[" * 100_000])
async def test_answers_that_are_none(provider, raw):
    provider.raw = raw
    async with opened("openai", provider.url) as model:
        with pytest.raises(ConversationError) as caught:
            await model.converse(HELLO)
    assert caught.value.code is Status.INTERNAL


@pytest.mark.parametrize("raw", [b"plain words", b'{"error": "plain words"}'])
async def test_refusals_in_other_forms(provider, raw):
    provider.status, provider.raw = 500, raw
    async with opened("ollama", provider.url) as model:
        with pytest.raises(ConversationError, match="plain words"):
            await model.converse(HELLO)


async def test_an_answer_that_never_ends_is_cut(provider, monkeypatch):
    monkeypatch.setattr("meshnode_conversation._http._MOST_BODY", 1000)
    provider.raw = b"x" * 2000
    async with opened("openai", provider.url) as model:
        with pytest.raises(ConversationError, match="longer than 1000 bytes"):
            await model.converse(HELLO)
        provider.raw = None
        assert await model.converse(HELLO)


@pytest.mark.parametrize("kind", MODULES)
async def test_nobody_answers(kind):
    async with opened(kind, f"http://127.0.0.1:{free_port()}") as model:
        with pytest.raises(ComponentUnavailable) as caught:
            await model.converse(HELLO)
    assert caught.value.code is Status.UNAVAILABLE


@pytest.mark.parametrize("kind", MODULES)
async def test_a_caller_that_goes_away_closes_the_connection(kind, provider):
    provider.slow = True
    async with opened(kind, provider.url) as model:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(model.converse, HELLO)
            await provider.asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await provider.gone.wait()  # while the component is open still
        provider.slow = False
        assert await model.converse(HELLO)


async def test_connections_are_used_again(provider):
    async with opened("openai", provider.url) as model:
        for _ in range(3):
            await model.converse(HELLO)
    assert (len(provider.seen), provider.connections) == (3, 1)


@pytest.mark.parametrize("kind", ["anthropic", "ollama"])
async def test_arguments_that_are_no_object(kind, provider):
    said = ChatMessage(ChatRole.ASSISTANT, (), tool_calls=(ToolCall("f", "[1]", "1"),))
    async with opened(kind, provider.url) as model:
        with pytest.raises(InvalidArgument, match="no JSON object"):
            await model.converse(ConverseRequest([said]))


async def test_texts_that_cannot_be_sent(provider):
    async with opened("openai", provider.url) as model:
        with pytest.raises(InvalidArgument):
            await model.converse(ConverseRequest([ChatMessage(ChatRole.USER, ("\ud800",))]))
        with pytest.raises(InvalidArgument):
            await model.converse(ConverseRequest(HELLO.messages, temperature=float("nan")))


async def test_anthropic_needs_a_turn(provider):
    async with opened("anthropic", provider.url) as model:
        with pytest.raises(InvalidArgument, match="a message of the user"):
            await model.converse(ConverseRequest(HISTORY[:2]))


async def test_models_named_by_the_environment(provider):
    context = DriverContext("model", "app", env={f"{kind.upper()}_MODEL": f"env-{kind}" for kind in MODULES})
    for kind in MODULES:
        async with opened(kind, provider.url, context) as model:
            await model.converse(HELLO)
    assert [body["model"] for _, _, body in provider.seen] == ["env-openai", "env-anthropic", "env-ollama"]


async def test_answers_are_kept(provider):
    async with opened("openai", provider.url, response_cache_ttl=timedelta(minutes=10)) as model:
        first = await model.converse(FULL)
        assert await model.converse(FULL) == first
        assert len(provider.seen) == 1
        await model.converse(HELLO)
        assert len(provider.seen) == 2


async def test_kept_answers_end_and_are_bounded(autojump_clock):
    class Counting:
        asked = 0

        async def converse(self, request):
            self.asked += 1
            return [ConverseOutput([ConverseChoice(str(self.asked))])]

    inner = Counting()
    model = Cached(inner, 10, most=2)
    requests = [ConverseRequest([ChatMessage(ChatRole.USER, (text,))]) for text in "abc"]
    for request in (*requests, *requests[1:]):
        await model.converse(request)
    assert inner.asked == 3
    await model.converse(requests[0])  # was dropped
    assert inner.asked == 4
    await trio.sleep(11)
    await model.converse(requests[0])
    assert inner.asked == 5


async def test_long_answers_are_not_kept(provider):
    choice = {"finish_reason": "stop", "message": {"content": "x" * 70_000}}
    provider.raw = json.dumps({"choices": [choice]}).encode()
    async with opened("openai", provider.url, response_cache_ttl=timedelta(minutes=10)) as model:
        for _ in range(2):
            await model.converse(HELLO)
    assert len(provider.seen) == 2


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("openai", {"endpoint": "nowhere"}, "endpoint"),
        ("openai", {"endpoint": "http://u:p@host"}, "endpoint"),
        ("openai", {"api_type": "azure", "endpoint": "http://host"}, "apiVersion"),
        ("openai", {"max_tokens": 0}, "maxTokens"),
        ("openai", {"response_cache_ttl": timedelta(0)}, "responseCacheTTL"),
        ("openai", {"key": f"{KEY}\n"}, "key"),
        ("anthropic", {"key": ""}, "key"),
        ("anthropic", {"api_type": "foundry"}, "endpoint"),
        ("ollama", {"endpoint": "ftp://host"}, "endpoint"),
    ],
)
def test_components_that_cannot_be_right(kind, options, field):
    if kind != "ollama":
        options = {"key": KEY, **options}
    with pytest.raises(ConfigError) as caught:
        MODULES[kind].Options(**options)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert KEY not in str(caught.value)


def test_keys_are_not_shown():
    assert KEY not in repr(openai.Options(key=KEY)) + repr(anthropic.Options(key=KEY))
