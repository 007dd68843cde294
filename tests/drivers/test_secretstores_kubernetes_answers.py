"""secretstores.kubernetes: kubeconfig files, and answers that a healthy API server does not give."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshnode_secretstores_kubernetes._cluster as cluster
import pytest
import yaml
from meshnode_secretstores_kubernetes import driver

from meshnode.errors import ComponentError, ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext
from meshnode.registry import load_options


def opened(path="", env=None, **metadata):
    given = {"defaultNamespace": "shop", **({"kubeconfigPath": str(path)} if path else {}), **metadata}
    return driver.open(
        load_options(driver.metadata, given), DriverContext("kubernetes", "app", env=env or {})
    )


@contextmanager
def answering(*answers):
    """A server that gives these, one after the other; what it was asked."""
    asked, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            status, content = left.pop(0) if len(left) > 1 else left[0]
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def config(folder, server="http://127.0.0.1:1", user=None, **more):
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **more}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


def status(code, message, reason="Failure"):
    return code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (status(403, "secrets is forbidden"), ComponentError, "status 403: secrets is forbidden"),
        (status(429, "too many requests"), ComponentUnavailable, "status 429: too many"),
        (status(410, "the continue token is too old"), ComponentUnavailable, "status 410"),
        (status(500, "etcdserver: timed out"), ComponentUnavailable, "status 500: etcdserver"),
        ((503, b"hush"), ComponentUnavailable, "status 503$"),
        ((404, b"404 page not found: hush"), ComponentError, "status 404$"),
        ((302, b"hush"), ComponentError, "status 302$"),
        ((200, b"hush"), ComponentError, "no object of its API"),
        ((200, b"[" * 100_000), ComponentError, "no object of its API"),
    ],
)
async def test_what_is_refused(answer, kind, said, tmp_path):
    with answering(answer) as (url, _):
        async with opened(config(tmp_path, url)) as store:
            for call in (partial(store.get, "db"), store.bulk_get):
                with pytest.raises(ComponentError, match=said) as caught:
                    await call({})
                assert type(caught.value) is kind
                assert "hush" not in str(caught.value)


async def test_objects_that_are_not_what_they_should_be(tmp_path):
    good = {"metadata": {"name": "good"}, "data": {"a": b64encode(b"b").decode(), "n": None}}
    odd = {"data": {"x": "not base64", "y": 5}}
    page = {
        "items": [good, {"metadata": {"name": "odd"}, **odd}, {"metadata": {}}, "text"],
        "metadata": "text",
    }
    with answering((200, odd), (200, {"data": "text"}), (200, page), (200, {"items": "text"})) as (url, _):
        async with opened(config(tmp_path, url)) as store:
            assert await store.get("db", {}) == {}
            assert await store.get("db", {}) == {}
            assert await store.bulk_get({}) == {"good": {"a": "b", "n": ""}, "odd": {}}
            assert await store.bulk_get({}) == {}


async def test_what_is_asked(tmp_path):
    first = {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "x y&z"}}
    second = {"items": [{"metadata": {"name": "b"}}], "metadata": {}}
    with answering((200, {}), (200, first), (200, second)) as (url, asked):
        async with opened(config(tmp_path, f"{url}/clusters/one/", {"token": "t"})) as store:
            await store.get("db", {})
            assert set(await store.bulk_get({})) == {"a", "b"}
    path = "/clusters/one/api/v1/namespaces/shop/secrets"
    assert asked == [
        (f"{path}/db", "Bearer t"),
        (f"{path}?limit=100", "Bearer t"),
        (f"{path}?limit=100&continue=x+y%26z", "Bearer t"),
    ]


async def test_name_and_password(tmp_path):
    with answering((200, {})) as (url, asked):
        async with opened(config(tmp_path, url, {"username": "u", "password": "p"})) as store:
            await store.get("db", {})
    assert asked[0][1] == "Basic dTpw"


async def test_a_file_that_the_component_names_goes_before_the_service_account(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "ACCOUNT", tmp_path)
    (tmp_path / "token").write_text("t")
    env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with answering((200, {"data": {"a": ""}})) as (url, _):
        path = config(tmp_path, url)
        async with opened(path, env) as store:
            assert await store.get("db", {}) == {"a": ""}
        async with opened(env={**env, "KUBECONFIG": str(path)}) as store:
            with pytest.raises(ComponentUnavailable, match="cannot be reached"):
                await store.get("db", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- hush", "is no kubeconfig file"),
        ("{hush", "is no kubeconfig file"),
        ("!!python/object:hush {}", "is no kubeconfig file"),
        ("a: b", "no context is chosen"),
        ("current-context: x", "there is no context 'x'"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: y}}]", "there is no cluster 'y'"),
        ("current-context: x\ncontexts: [{name: x, context: {}}]", "no cluster is chosen"),
    ],
)
async def test_files_that_are_no_kubeconfigs(text, said, tmp_path):
    (tmp_path / "config").write_text(text)
    await cannot_be_opened(tmp_path / "config", said)


@pytest.mark.parametrize(
    ("user", "more", "said"),
    [
        ({"exec": {"command": "aws"}}, {}, "programs that fetch credentials"),
        ({"auth-provider": {"name": "gcp"}}, {}, "authentication providers"),
        ({"as": "root"}, {}, "impersonation"),
        ({}, {"proxy-url": "http://proxy"}, "no proxies"),
        ({}, {"server": "10.0.0.1:6443"}, "is no address such as"),
        ({}, {"server": "https://[::1"}, "is no address such as"),
        ({}, {"server": None}, "is no address such as"),
        ({}, {"certificate-authority": "no-such-file"}, "no-such-file cannot be read: No such file"),
        ({}, {"certificate-authority-data": "hush!"}, "certificate-authority-data.*is not base64"),
        ({}, {"certificate-authority-data": "aHVzaA=="}, "holds no certificates"),
        ({"client-certificate-data": "aHVzaA==", "client-key-data": "aHVzaA=="}, {}, "cannot be used"),
        ({"client-certificate": "no-such-file"}, {}, "no-such-file cannot be read"),
    ],
)
async def test_what_a_kubeconfig_cannot_have(user, more, said, tmp_path):
    await cannot_be_opened(config(tmp_path, user=user, **more), said)


async def test_no_file_and_no_cluster(tmp_path):
    for env in ({"KUBECONFIG": str(tmp_path / "nothing")}, {"HOME": str(tmp_path)}):
        with pytest.raises(ComponentError, match="cannot be read: No such file"):
            async with opened(env=env):
                pass
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    await cannot_be_opened(tmp_path / "binary", "it is not text")


async def cannot_be_opened(path, said):
    with pytest.raises(ComponentError, match=said) as caught:
        async with opened(path):
            pass
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"token": "hush\nx: y"}, "characters that no token has"),
        ({"tokenFile": "no-such-file"}, "token file .*no-such-file cannot be read: No such file"),
    ],
)
async def test_tokens_that_cannot_be_used(user, said, tmp_path):
    async with opened(config(tmp_path, user=user)) as store:
        with pytest.raises(ComponentError, match=said) as caught:
            await store.get("db", {})
        assert "hush" not in str(caught.value)


async def test_a_server_that_is_not_there(tmp_path):
    with answering((200, {})) as (url, _):
        pass
    async with opened(config(tmp_path, url)) as store:
        with pytest.raises(ComponentUnavailable, match="cannot be reached"):
            await store.get("db", {})


def test_metadata_that_cannot_be_used():
    for metadata, said in (({"defaultNamespace": "a/b"}, "defaultNamespace: 'a/b' is no namespace"),
                           ({"namespace": "x"}, "unknown metadata name")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            load_options(driver.metadata, metadata)
