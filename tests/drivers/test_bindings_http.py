"""bindings.http against servers of the standard library, and against some that misbehave."""

from __future__ import annotations

import gzip
import json
import logging
import ssl
import threading
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from meshnode_bindings_http import Options, driver
from meshnode_bindings_http._request import outgoing
from support.certificates import Authority
from support.redis_servers import free_port

from meshnode.errors import BindingError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import BindingRequest, DriverContext, OutputBinding
from meshnode.registry import load_options
from meshnode.testing.conformance import bindings

CONTEXT = DriverContext("web", "app")
OPERATIONS = ("create", "get", "head", "post", "put", "patch", "delete", "options", "trace")


class Handler(BaseHTTPRequestHandler):
    """Tells what it was asked; some paths do more."""

    protocol_version = "HTTP/1.1"

    def _serve(self):
        length = int(self.headers.get("Content-Length", 0))
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode("latin-1"),
            "port": self.client_address[1],
        }
        self.server.seen.append(seen)
        kind, _, argument = self.path.lstrip("/").partition("/")
        if kind == "status":
            self._answer(int(argument), b"status " + argument.encode())
        elif kind == "redirect":
            code, _, target = argument.partition("/")
            self._answer(int(code), b"moved", Location=self.server.targets.get(target, "/" + target))
        elif kind == "gzip":
            self._answer(200, self.server.files[argument], **{"Content-Encoding": "gzip"})
        elif kind == "cookie":
            self._answer(200, b"", **{"Set-Cookie": "a=1"})
        elif kind == "long":
            self._answer(200, b"x" * int(argument))
        elif kind == "twice":
            self.send_response(200, "Fine")
            for value in ("1", "2"):
                self.send_header("x-SOME-thing", value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")
        else:
            self._answer(200, json.dumps(seen).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


for _operation in OPERATIONS:
    setattr(Handler, f"do_{_operation.upper()}", Handler._serve)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.targets, self.files = [], {}, {}
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def serve():
    running = []

    def start(tls=None):
        server = Server(tls)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(serve):
    return serve()


@asynccontextmanager
async def opened(url, **options):
    async with driver.open(Options(url=url, **options), CONTEXT) as binding:
        yield binding


async def call(binding, operation="get", data=b"", **metadata):
    return await binding.invoke(BindingRequest(operation, data, metadata))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_conformance(check, server):
    example = BindingRequest("post", b"{}")
    assert await check.run(bindings.OutputSetup(lambda: opened(server.url), example))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_operations(server, operation):
    async with opened(server.url) as binding:
        assert isinstance(binding, OutputBinding)
        assert binding.operations == OPERATIONS
        result = await call(binding, operation, b'{"a":1}')
    (seen,) = server.seen
    with_body = operation in ("create", "post", "put", "patch")
    assert seen["method"] == ("POST" if operation == "create" else operation.upper())
    assert seen["body"] == ('{"a":1}' if with_body else "")
    assert seen["headers"]["accept"] == "application/json; charset=utf-8"
    assert seen["headers"].get("content-type") == ("application/json; charset=utf-8" if with_body else None)
    assert ("content-length" in seen["headers"]) == with_body
    assert result.metadata["statusCode"] == "200"
    assert result.metadata["status"] == "200 OK"
    assert result.metadata["Content-Type"] == "application/json"
    assert result.data == (b"" if operation == "head" else json.dumps(seen).encode())


async def test_which_metadata_are_headers(server):
    async with opened(server.url + "/base/") as binding:
        await call(
            binding,
            "post",
            b"x",
            **{
                "path": "/a b?c=ä&d=%2F",
                "Content-type": "text/plain",
                "Accept": "text/*",
                "X-Empty": "",
                "X-Text": "grüße",
                "Host": "elsewhere.example.com",
                "Content-Length": "77",
                "Transfer-Encoding": "chunked",
                "User-Agent": "me",
                "lower": "case",
                "Traceparent": "mine",
                "traceparent": "00-11111111111111111111111111111111-2222222222222222-01",
                "tracestate": "a=b",
                "baggage": "c=d",
            },
        )
    (seen,) = server.seen
    headers = seen["headers"]
    assert seen["path"] == "/base/a%20b?c=%C3%A4&d=%2F"
    assert seen["body"] == "x"
    assert headers["content-type"] == "text/plain"
    assert headers["accept"] == "text/*"
    assert headers["x-empty"] == ""
    assert headers["x-text"].encode("latin-1").decode() == "grüße"
    assert headers["host"] == f"127.0.0.1:{server.server_port}"
    assert headers["content-length"] == "1"
    assert "transfer-encoding" not in headers
    assert headers["user-agent"] == "me"
    assert "lower" not in headers
    assert headers["traceparent"].startswith("00-1")
    assert (headers["tracestate"], headers["baggage"]) == ("a=b", "c=d")


async def test_a_security_token(server):
    options = {"security_token": "hush", "security_token_header": "X-Token"}
    async with opened(server.url, **options) as binding:
        await call(binding)
        await call(binding, **{"X-Token": "other"})
    assert [one["headers"]["x-token"] for one in server.seen] == ["hush", "other"]


async def test_user_and_password_in_the_url(server):
    async with opened(server.url.replace("//", "//me:p%40ss@")) as binding:
        await call(binding)
        await call(binding, Authorization="Bearer x")
    found = [one["headers"]["authorization"] for one in server.seen]
    assert found == ["Basic bWU6cEBzcw==", "Bearer x"]


async def test_metadata_of_an_answer(server):
    async with opened(server.url) as binding:
        result = await call(binding, path="twice")
    assert result.data == b"abc"
    del result.metadata["Date"], result.metadata["Server"]
    assert result.metadata == {"statusCode": "200", "status": "200 Fine", "X-Some-Thing": "1, 2"}


@pytest.mark.parametrize("status", [301, 400, 404, 500, 503])
async def test_other_statuses_are_errors_unless_told(server, status):
    path = f"status/{status}"
    async with opened(server.url) as binding:
        with pytest.raises(BindingError, match=f"received status code {status}"):
            await call(binding, path=path)
        for word in ("false", "no", "0"):
            result = await call(binding, path=path, errorIfNot2XX=word)
            assert result.metadata["statusCode"] == str(status)
            assert result.data == f"status {status}".encode()
    async with opened(server.url, error_if_not_2xx=False) as binding:
        assert (await call(binding, path=path)).metadata["statusCode"] == str(status)
        with pytest.raises(BindingError):
            await call(binding, path=path, errorIfNot2XX="Yes ")


async def test_an_answer_without_content(server):
    async with opened(server.url) as binding:
        result = await call(binding, path="status/204")
    assert (result.data, result.metadata["status"]) == (b"", "204 No Content")


@pytest.mark.parametrize(
    ("status", "operation", "then"),
    [
        (301, "get", "GET"),
        (302, "head", "HEAD"),
        (301, "post", "GET"),
        (302, "put", "GET"),
        (303, "delete", "GET"),
        (307, "post", "POST"),
        (308, "delete", "DELETE"),
    ],
)
async def test_redirects(server, status, operation, then):
    async with opened(server.url) as binding:
        await call(binding, operation, b"body", path=f"redirect/{status}/there", Authorization="mine")
    first, second = server.seen
    assert first["method"] == operation.upper()
    assert (second["method"], second["path"]) == (then, "/there")
    assert second["body"] == ("body" if then == "POST" else "")
    assert second["headers"]["authorization"] == "mine"
    assert ("content-type" in second["headers"]) == (then == "POST")


async def test_another_host_does_not_see_secrets(serve):
    here, there = serve(), serve()
    here.targets["there"] = f"http://localhost:{there.server_port}/x"
    options = {"security_token": "hush", "security_token_header": "X-Token"}
    async with opened(here.url, **options) as binding:
        await call(binding, path="redirect/307/there", Authorization="a", Cookie="b", **{"X-Plain": "c"})
    (seen,) = there.seen
    assert "x-token" in here.seen[0]["headers"]
    assert not {"x-token", "authorization", "cookie"} & set(seen["headers"])
    assert seen["headers"]["x-plain"] == "c"


async def test_redirects_that_lead_nowhere(server):
    server.targets |= {"round": "/redirect/302/round", "file": "file:///etc/passwd", "none": ""}
    async with opened(server.url) as binding:
        with pytest.raises(BindingError, match="stopped after 10 redirects"):
            await call(binding, path="redirect/302/round")
        assert len(server.seen) == 10
        for target in ("file", "none"):
            with pytest.raises(BindingError, match="received status code 302"):
                await call(binding, path=f"redirect/302/{target}")


async def test_no_cookies(server):
    async with opened(server.url) as binding:
        await call(binding, path="cookie")
        await call(binding)
    assert "cookie" not in server.seen[1]["headers"]


async def test_compression_is_undone(server):
    text = b"words " * 50_000
    server.files["a"] = gzip.compress(text)
    server.files["members"] = gzip.compress(b"one ") + gzip.compress(b"two")
    async with opened(server.url) as binding:
        result = await call(binding, path="gzip/a")
        assert result.data == text
        assert not {"Content-Encoding", "Content-Length"} & set(result.metadata)
        assert (await call(binding, path="gzip/members")).data == b"one two"
        raw = await call(binding, path="gzip/a", **{"Accept-Encoding": "gzip"})
        assert raw.data == server.files["a"]
        assert raw.metadata["Content-Encoding"] == "gzip"
    assert server.seen[0]["headers"]["accept-encoding"] == "gzip"


async def test_broken_compression(server):
    server.files |= {"no": b"plain text", "short": gzip.compress(b"x" * 1000)[:-5]}
    async with opened(server.url) as binding:
        for name in ("no", "short"):
            with pytest.raises(BindingError, match="gzip/"):
                await call(binding, path=f"gzip/{name}")


async def test_a_body_that_is_too_long_is_cut(server, caplog):
    server.files["bomb"] = gzip.compress(bytes(10_000_000))
    async with opened(server.url, max_response_body_size=1000) as binding:
        assert (await call(binding, path="long/1000")).data == b"x" * 1000
        assert not caplog.records
        with caplog.at_level(logging.WARNING, "meshnode.driver"):
            assert (await call(binding, path="long/1000000")).data == b"x" * 1000
            assert (await call(binding, path="gzip/bomb")).data == bytes(1000)
        assert caplog.messages == ["web: body cut off at 1000 bytes"] * 2
    async with opened(server.url, max_response_body_size=0) as binding:
        assert len((await call(binding, path="long/1000000")).data) == 1_000_000


async def test_connections_are_used_again(server):
    async with opened(server.url) as binding:
        for _ in range(3):
            await call(binding, "post", b"x")
        with pytest.raises(BindingError):
            await call(binding, path="status/500")
        await call(binding)
    assert len({one["port"] for one in server.seen}) == 1


async def test_many_at_once(server):
    answers = {}

    async def one(n):
        answers[n] = json.loads((await call(binding, "post", b"%d" % n)).data)["body"]

    async with opened(server.url) as binding, trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(one, n)
    assert answers == {n: str(n) for n in range(20)}


async def test_tls_both_ways(serve, tmp_path):
    authority = Authority()
    ca, certificate, key = authority.write(tmp_path, "server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    tls.load_cert_chain(certificate, key)
    tls.verify_mode = ssl.CERT_REQUIRED
    server = serve(tls)
    client, client_key = authority.issue("client")
    _, client_file, client_key_file = authority.write(tmp_path, "client")
    with_text = {"root_ca": authority.certificate, "client_cert": client, "client_key": client_key}
    with_files = {"root_ca": str(ca), "client_cert": str(client_file), "client_key": str(client_key_file)}
    for options in (with_text, with_files):
        async with opened(server.url, renegotiation="RenegotiateOnceAsClient", **options) as binding:
            assert (await call(binding)).metadata["statusCode"] == "200"
    for options in ({}, {"root_ca": authority.certificate}):
        async with opened(server.url, **options) as binding:
            with pytest.raises(ComponentUnavailable):
                await call(binding)


async def test_certificates_that_cannot_be_used(tmp_path):
    authority = Authority()
    (certificate, _), (_, other_key) = authority.issue("one"), authority.issue("two")
    cases = [
        ({"root_ca": "-----BEGIN CERTIFICATE-----\nx"}, "MTLSRootCA: holds no certificate"),
        ({"root_ca": str(tmp_path / "missing")}, "MTLSRootCA: is neither PEM nor the name of a file"),
        ({"client_cert": certificate, "client_key": other_key}, "MTLSClientCert: does not go with"),
        ({"client_cert": certificate, "client_key": "no\0file"}, "MTLSClientKey: is neither PEM"),
    ]
    for options, complaint in cases:
        with pytest.raises(ConfigError, match=complaint):
            async with opened("https://localhost", **options):
                pass


async def test_nobody_there(serve):
    async with opened(f"http://user:secret@127.0.0.1:{free_port()}/x?key=secret") as binding:
        with pytest.raises(ComponentUnavailable) as caught:
            await call(binding)
    assert "secret" not in str(caught.value)


@asynccontextmanager
async def raw(*answers):
    """A server that gives one of these answers per request and then leaves the connection open.

    Yields its URL, and events for the last answer, if any, having been given and for the client's going.
    """
    left = list(answers)
    asked, gone = trio.Event(), trio.Event()

    async def talk(stream):
        try:
            while await stream.receive_some():
                if left:
                    await stream.send_all(left.pop(0))
                if not left:
                    asked.set()
        except trio.BrokenResourceError:
            pass
        gone.set()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, talk, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serving)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", asked, gone
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("begun", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",)])
async def test_cancelled_it_hangs_up(begun):
    async with raw(*begun) as (url, asked, gone), opened(url) as binding:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, binding)
            await asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await gone.wait()


@pytest.mark.parametrize("begun", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",)])
async def test_the_response_timeout(begun):
    async with (
        raw(*begun) as (url, _, gone),
        opened(url, response_timeout=timedelta(milliseconds=50)) as binding,
    ):
        with pytest.raises(ComponentUnavailable, match=r"did not answer within 0.05 s"):
            await call(binding)
        with trio.fail_after(5):
            await gone.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"220 this is not HTTP\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none(answer):
    async with raw(answer) as (url, _, gone), opened(url) as binding:
        with pytest.raises(ComponentUnavailable):
            await call(binding)
        with trio.fail_after(5):
            await gone.wait()


@pytest.mark.parametrize(
    ("operation", "metadata", "complaint"),
    [
        ("connect", {}, "invalid operation: connect"),
        ("get", {"X-A": "b\r\nX-C: d"}, "header x-a has control characters"),
        ("get", {"X A": "b"}, "'x a' is no name of a header"),
        ("get", {"traceparent": "a\nb"}, "header traceparent has control characters"),
        ("get", {"path": "a\r\nHost: b"}, "path: "),
    ],
)
async def test_requests_that_can_never_be_right(operation, metadata, complaint):
    async with opened("http://localhost:1") as binding:
        with pytest.raises(InvalidArgument, match=complaint):
            await call(binding, operation, **metadata)


@given(st.text(max_size=30))
def test_a_path_never_changes_the_host(path):
    try:
        request = outgoing("http://host.example.com:81/base", None, "get", {"path": path}, b"")
    except InvalidArgument:
        return
    assert (request.url.scheme, request.url.host, request.url.port) == ("http", "host.example.com", 81)


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "url: is missing"),
        ({"url": ""}, "url: is no http or https URL"),
        ({"url": "ftp://host"}, "url: is no http or https URL"),
        ({"url": "http://"}, "url: is no http or https URL"),
        ({"url": "http://host:port"}, "url: is no URL"),
        (
            {"url": "http://h", "MTLSClientCert": "c"},
            "MTLSClientKey: is missing, but MTLSClientCert is given",
        ),
        ({"url": "http://h", "MTLSClientKey": "c"}, "MTLSClientCert: is missing, but MTLSClientKey is given"),
        (
            {"url": "http://h", "securityToken": "c"},
            "securityTokenHeader: is missing, but securityToken is given",
        ),
        (
            {"url": "http://h", "securityToken": "c", "securityTokenHeader": "a b"},
            "'a b' is no name of a header",
        ),
        ({"url": "http://h", "responseTimeout": "0"}, "responseTimeout: must be above 0"),
        ({"url": "http://h", "responseTimeout": "soon"}, "expected a duration"),
        ({"url": "http://h", "maxResponseBodySize": "much"}, "maxResponseBodySize"),
        ({"url": "http://h", "MTLSRenegotiation": "Always"}, "MTLSRenegotiation"),
        ({"url": "http://h", "uri": "x"}, "uri: unknown metadata name"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_options(Options, metadata)


def test_dapr_s_own_example_is_understood():
    options = load_options(
        Options,
        {"url": "http://h", "responseTimeout": "10s", "maxResponseBodySize": "100Mi", "MTLSRootCA": "/ca.pem"}
        | {
            "MTLSClientCert": "/c.pem",
            "MTLSClientKey": "/k.pem",
            "MTLSRenegotiation": "RenegotiateOnceAsClient",
        }
        | {"securityToken": "hush", "securityTokenHeader": "X-Security-Token", "errorIfNot2XX": "false"},
    )
    assert options.max_response_body_size == 100 << 20
    assert not options.error_if_not_2xx
    assert "hush" not in repr(options)
