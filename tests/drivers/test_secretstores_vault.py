"""secretstores.hashicorp.vault against a small server that speaks the part of Vault's HTTP API it uses."""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from meshnode_secretstores_vault import driver
from support.certificates import Authority

from meshnode.errors import ComponentError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import DriverContext, SecretFeature
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import secretstores

CONTEXT = DriverContext("vault", "app")
TOKEN = "hvs.the-token"
VALUES: dict[str, list[dict[str, Any]]] = {
    "dapr/db": [{"user": "u", "password": "old"}, {"user": "u", "password": "new"}],
    "dapr/team/api": [{"key": "k", "port": 6379, "on": True, "none": None}],
    "dapr/odd name%61": [{"a": "b"}],
    "elsewhere": [{"x": "y"}],
}
SECRETS = {
    "db": {"user": "u", "password": "new"},
    "team/api": {"key": "k", "port": "6379", "on": "true", "none": ""},
    "odd name%61": {"a": "b"},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeVault

    def do_GET(self) -> None:
        path, query = self._asked()
        if not self._refused() and path.startswith("data/"):
            versions = self.server.values.get(path.removeprefix("data/"), [])
            version = int(query.get("version", ["0"])[0]) or len(versions)
            if 0 < version <= len(versions):
                found = {"data": versions[version - 1], "metadata": {"version": version}}
                self._answer(200, {"data": found})
            else:
                self._answer(404, {"errors": []})

    def do_LIST(self) -> None:
        path, _ = self._asked()
        if not self._refused():
            folder = (path.removeprefix("metadata").strip("/") + "/").lstrip("/")
            rest = [one.removeprefix(folder) for one in self.server.values if one.startswith(folder)]
            keys = sorted({one.partition("/")[0] + ("/" if "/" in one else "") for one in rest})
            self._answer(200 if keys else 404, {"data": {"keys": keys}} if keys else {"errors": []})

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        return unquote(parts.path).removeprefix("/v1/secret/"), parse_qs(parts.query)

    def _refused(self) -> bool:
        if self.server.answers is not None:
            self._answer(*self.server.answers)
        elif self.headers.get("X-Vault-Token") != TOKEN:
            self._answer(403, {"errors": ["permission denied"]})
        else:
            return False
        return True

    def _answer(self, status: int, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class FakeVault(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.values: dict[str, list[dict[str, Any]]] = dict(VALUES)
        self.seen: list[dict[str, str]] = []
        self.answers: tuple[int, Any] | None = None


@contextmanager
def serving(server: FakeVault) -> Iterator[FakeVault]:
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with serving(FakeVault()) as server:
        yield server


def opened(vault: FakeVault, scheme: str = "http", **metadata: str) -> Any:
    fields = {"vaultAddr": f"{scheme}://127.0.0.1:{vault.server_port}", "vaultToken": TOKEN, **metadata}
    given = {name: value for name, value in fields.items() if value}
    return driver.open(load_options(driver.metadata, given), CONTEXT)


def test_it_is_found_by_its_entry_point() -> None:
    assert Registry.discover().driver("secretstores.hashicorp.vault", "v1") is driver


@pytest.mark.parametrize("value_type", ["map", "text"])
@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_it_conforms(check: secretstores.SecretCheck, value_type: str, vault: FakeVault) -> None:
    secrets: dict[str, dict[str, str]] = SECRETS
    if value_type == "text":
        latest = {name: VALUES[f"dapr/{name}"][-1] for name in SECRETS}
        secrets = {name: {name: json.dumps(one, separators=(",", ":"))} for name, one in latest.items()}
    assert await check.run(secretstores.Setup(partial(opened, vault, vaultValueType=value_type), secrets))


async def test_versions(vault: FakeVault) -> None:
    async with opened(vault) as store:
        assert (await store.get("db", {"version_id": "1"}))["password"] == "old"
        with pytest.raises(KeyError):
            await store.get("db", {"version_id": "9"})
        assert set(await store.bulk_get({"version_id": "2"})) == {"db"}
        for version in ("x", "-1", "1&a=b"):
            with pytest.raises(InvalidArgument, match="whole number"):
                await store.get("db", {"version_id": version})


async def test_prefixes(vault: FakeVault) -> None:
    async with opened(vault, vaultKVUsePrefix="false") as store:
        assert await store.get("elsewhere", {}) == {"x": "y"}
        assert set(await store.bulk_get({})) == {"elsewhere", *(f"dapr/{name}" for name in SECRETS)}
    async with opened(vault, vaultKVPrefix="/dapr/team/") as store:
        assert set(await store.bulk_get({})) == {"api"}
    async with opened(vault, vaultKVPrefix="nothing") as store:
        assert await store.bulk_get({}) == {}


async def test_headers(vault: FakeVault, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"  {TOKEN}\n")
    metadata = {"vaultToken": "", "vaultTokenMountPath": str(token), "vaultNamespace": "team"}
    async with opened(vault, **metadata) as store:
        await store.get("db", {})
    (seen,) = vault.seen
    assert (seen["x-vault-token"], seen["x-vault-request"], seen["x-vault-namespace"]) == (
        TOKEN, "true", "team",
    )  # fmt: skip


async def test_features(vault: FakeVault) -> None:
    async with opened(vault) as store:
        assert store.features == {SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET}
    async with opened(vault, vaultValueType="text") as store:
        assert store.features == frozenset()


@pytest.mark.parametrize(
    ("answers", "kind", "said"),
    [
        ((403, {"errors": ["permission denied"]}), ComponentError, "status 403: permission denied"),
        ((503, {"errors": ["Vault is sealed"]}), ComponentUnavailable, "status 503: Vault is sealed"),
        ((429, b""), ComponentUnavailable, "status 429"),
        ((307, b""), ComponentError, "status 307"),
        ((200, b"hush {"), ComponentError, "without data"),
        ((200, {"data": {"hush": "hush"}}), ComponentError, "without a"),
        ((200, b"[" * 100_000), ComponentError, "without data"),
    ],
)
async def test_what_vault_refuses(
    answers: tuple[int, Any], kind: type[ComponentError], said: str, vault: FakeVault
) -> None:
    vault.answers = answers
    async with opened(vault) as store:
        for call in (partial(store.get, "db"), store.bulk_get):
            with pytest.raises(ComponentError, match=said) as caught:
                await call({})
            assert type(caught.value) is kind
            assert "hush" not in str(caught.value)


async def test_a_server_that_is_not_there() -> None:
    with serving(FakeVault()) as gone:
        pass
    async with opened(gone) as store:
        with pytest.raises(ComponentUnavailable, match="cannot be reached"):
            await store.get("db", {})


async def test_certificates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ca, certificate, key = Authority().write(tmp_path, "vault")
    other, _, _ = Authority().write(tmp_path, "other")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "ca.pem").write_text(ca.read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    vault = FakeVault()
    vault.socket = context.wrap_socket(vault.socket, server_side=True)
    with serving(vault):
        for trusted in (
            {"caCert": str(ca)},
            {"caPath": str(folder), "caCert": "/no/such/file"},
            {"caPem": ca.read_text(), "caCert": "/no/such/file"},
            {"skipVerify": "true"},
            {"caCert": str(ca), "tlsServerName": "localhost"},
        ):
            async with opened(vault, "https", **trusted) as store:
                assert await store.get("db", {}) == SECRETS["db"]
        assert "anybody can pose as Vault" in caplog.text
        wrong = {"caCert": str(ca), "tlsServerName": "vault.example"}
        for distrusted in ({}, {"caCert": str(other)}, wrong):
            async with opened(vault, "https", **distrusted) as store:
                with pytest.raises(ComponentUnavailable, match="certificate"):
                    await store.get("db", {})


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"vaultToken": ""}, "exactly one of"),
        ({"vaultTokenMountPath": "x"}, "exactly one of"),
        ({"vaultAddr": "vault:8200"}, "must be an address"),
        ({"vaultAddr": "http://user:p@vault"}, "must be an address"),
        ({"vaultValueType": "list"}, "vaultValueType"),
    ],
)
async def test_metadata_that_cannot_be_used(metadata: dict[str, str], said: str, vault: FakeVault) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(vault, **metadata)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"vaultToken": "hush\nx: y"}, "characters that no token has"),
        ({"vaultToken": "", "vaultTokenMountPath": "/no/such/file"}, "No such file"),
        ({"caPem": "hush"}, "no certificates"),
        ({"caCert": "/no/such/file"}, "cannot be read"),
    ],
)
async def test_what_only_shows_when_it_is_opened(
    metadata: dict[str, str], said: str, vault: FakeVault
) -> None:
    with pytest.raises(ComponentError, match=said) as caught:
        async with opened(vault, **metadata):
            pass
    assert "hush" not in str(caught.value)
