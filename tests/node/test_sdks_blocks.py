"""The SDKs from npm and the Go module proxy on secrets, cryptography, locks and configuration, at a real
node. (Those from PyPI: `test_sdks_secrets` and its neighbours.)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.processes import Node, Process, node, process

HERE = Path(__file__).parent
SECRETS = {"db": {"user": "u", "password": "p"}, "plain": "text", "private": "hidden"}
RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: HOME/secrets.json}, {name: multiValued, value: "true"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: crypto.dapr.localstorage, version: v1, metadata: [{name: path, value: HOME/keys}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec: {type: lock.sqlite, version: v1, metadata: [{name: url, value: HOME/locks.db}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec:
  type: configuration.sqlite
  version: v1
  metadata: [{name: url, value: HOME/settings.db}, {name: pollInterval, value: 10ms}]
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  secrets:
    scopes: [{storeName: files, deniedSecrets: [private]}]
"""
DOCUMENT = hashlib.sha256(b"0123456789abcdef" * 20_000).hexdigest()


@frozen
class Blocks:
    """A node, and what writes its settings."""

    node: Node
    write: Callable[[str, str], Any]


@pytest.fixture
def blocks(tmp_path: Path) -> Iterator[Blocks]:
    (tmp_path / "secrets.json").write_text(json.dumps(SECRETS))
    keys = tmp_path / "keys"
    keys.mkdir()
    key = rsa.generate_private_key(65537, 2048)
    (keys / "rsa.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (keys / "aes").write_bytes(bytes(range(32)))
    config = tmp_path / "config.yaml"
    resources, configuration = RESOURCES.replace("HOME", str(tmp_path)).rsplit("---\n", 1)
    config.write_text(configuration)
    with (
        node("app", tmp_path, "--config", str(config), resources=resources) as running,
        closing(sqlite3.connect(tmp_path / "settings.db", isolation_level=None)) as connection,
    ):

        def write(value: str, version: str) -> None:
            sql = "INSERT OR REPLACE INTO configuration (key, value, version) VALUES ('colour', ?, ?)"
            connection.execute(sql, (value, version))

        write("blue", "1")
        yield Blocks(running, write)


def played(command: Sequence[str], folder: Path, play: Callable[[Process], None]) -> dict[str, Any]:
    """What a client saw, while `play` changes the settings that it follows."""
    with process(command, cwd=folder) as client:
        play(client)
        assert client.popen.wait(60) == 0, client.output
        client.end()  # reads the rest
    seen: dict[str, Any] = json.loads(client.lines[-1])
    return seen


def expect_what_holds_for_all(seen: dict[str, Any]) -> None:
    assert seen["secrets"] == {"db": {"user": "u", "password": "p"}, "plain": {"plain": "text"}}
    assert 'access denied by policy to get "private" from "files"' in seen["denied"]
    assert "secret ghost not found" in seen["noSecret"]
    assert "failed finding secret store with key ghost" in seen["noSecretStore"]
    assert seen["opened"] == [DOCUMENT, DOCUMENT]
    assert "failed to decrypt segment" in seen["changed"]
    assert "ghost" in seen["noKey"]
    assert seen["taken"] == [True, False]
    assert "lock store ghost not found" in seen["noLockStore"]
    assert "configuration store ghost not found" in seen["noConfigurationStore"]
    assert seen["more"] == 0


@pytest.mark.node_sdk
def test_javascript(blocks: Blocks) -> None:
    folder = HERE / "npm_client"
    if shutil.which("node") is None or not (folder / "node_modules").exists():
        pytest.skip("Node.js or the npm package @dapr/dapr is not installed")

    def play(client: Process) -> None:
        client.wait_for("subscribing")
        # The SDK says that it follows before it does: what is written meanwhile nobody is told.
        for version in range(2, 1000):
            blocks.write("red", str(version))
            try:
                client.wait_for("stopped", seconds=0.3)
                break
            except AssertionError:
                assert client.popen.poll() is None, client.output
        blocks.write("last", "last")

    seen = played(["node", "blocks.mjs", str(blocks.node.port)], folder, play)
    expect_what_holds_for_all(seen)
    assert seen["secret"] == {"plain": "text"}
    assert seen["released"] == [2, 0, 1]  # the SDK's LockStatus: belongs to others, success, does not exist
    assert {key: item["value"] for key, item in seen["items"].items()} == {"colour": "blue"}
    assert [list(items) for items in seen["told"]] == [["colour"]] * len(seen["told"])
    assert seen["told"][0]["colour"]["value"] == "red"


@pytest.mark.go_sdk
def test_go(blocks: Blocks) -> None:
    program = shutil.which("go-sdk-client")
    if program is None:
        pytest.skip("the client with Dapr's Go SDK is not built")

    def play(client: Process) -> None:
        client.wait_for("subscribed")
        blocks.write("red", "2")
        client.wait_for("stopped")
        blocks.write("last", "3")

    seen = played([program, "blocks", blocks.node.address], HERE, play)
    expect_what_holds_for_all(seen)
    assert seen["secret"] == {"user": "u", "password": "p"}
    assert seen["released"] == ["LOCK_BELONGS_TO_OTHERS", "SUCCESS", "LOCK_DOES_NOT_EXIST"]
    assert {key: item["Value"] for key, item in seen["items"].items()} == {"colour": "blue"}
    assert seen["told"] == "red 2 1"
    assert "unsubscribe error message" in seen["again"]
