"""Every verb that talks to a node, against a real one in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from support.processes import node as second_node

from meshnode.cli._app import main
from meshnode.wire.dapr.proto.runtime import v1 as runtime

Cli = Callable[..., tuple[int, str, str]]
APP = "cli-under-test"
RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {short: 2s}
  targets:
    components: {statestore: {outbound: {timeout: short}}}
"""
STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1}
"""
BROKEN = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broken}
spec:
  type: state.sqlite
  version: v1
  ignoreErrors: true
  metadata: [{name: connectionString, value: /no/such/folder/x.db}]
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHNODE_RUNTIME_DIR", str(root / "run"))
        patch.setenv("MESHNODE_STATE_DIR", str(root / "state"))
        patch.setenv("MESHNODE_CONFIG_DIR", str(root / "config"))
        patch.setenv("NO_COLOR", "1")
        for name in ("DAPR_GRPC_PORT", "DAPR_GRPC_ENDPOINT", "DAPR_API_TOKEN"):
            patch.delenv(name, raising=False)
        resources = root / "resources"
        resources.mkdir()
        (resources / "resiliency.yaml").write_text(RESILIENCY)
        (resources / "store.yaml").write_text(STORE)
        patch.chdir(root)
        yield root


@pytest.fixture(scope="module")
def node(folders: Path) -> Iterator[dict[str, str]]:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "meshnode", "node", "--app-id", APP, "--dapr-grpc-port=0"]
    command += ["--resources-path", "resources", "--ready-fd", str(writer)]
    with subprocess.Popen(command, pass_fds=[writer], stdout=subprocess.DEVNULL) as process:
        os.close(writer)
        with os.fdopen(reader) as reports:
            line = reports.readline()
        assert line, "the node did not start"
        yield json.loads(line)
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture
def cli(folders: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*args: str) -> tuple[int, str, str]:
        code = main(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.usefixtures("node")
class TestWithANode:
    def test_list(self, cli: Cli, node: dict[str, str]) -> None:
        code, out, err = cli("list")
        assert (code, err) == (0, "")
        heading, row = out.splitlines()
        assert heading.split()[:3] == ["APP", "ID", "GRPC"]
        assert row.split()[:2] == [APP, node["grpc"][0]]
        rows = json.loads(cli("list", "-o", "json")[1])
        assert rows[0]["app_id"] == APP
        assert rows[0]["resources_paths"] == [str(Path("resources").absolute())]
        (line,) = cli("-o", "jsonl", "list")[1].splitlines()
        assert json.loads(line).keys() == rows[0].keys()

    def test_status(self, cli: Cli) -> None:
        code, out, _ = cli("status", APP)
        assert code == 0
        assert f"App id:      {APP}" in out
        assert "state.in-memory" in out
        status = json.loads(cli("status", APP, "--wait", "-o", "json")[1])
        assert status["state"] == "ready"
        assert [component["name"] for component in status["components"]] == ["statestore"]

    def test_live_requests(self, cli: Cli) -> None:
        code, out, _ = cli("status", "--requests", "-o", "json")
        assert code == 0
        assert json.loads(out) == []

    def test_state(self, cli: Cli, tmp_path: Path) -> None:
        assert cli("state", "save", "k", '{"a": 1}') == (0, "", "saved k in statestore\n")
        assert cli("state", "get", "k")[:2] == (0, '{"a": 1}\n')
        found = json.loads(cli("state", "get", "k", "-o", "json")[1])
        assert (found["key"], found["value"], found["encoding"]) == ("k", {"a": 1}, "json")
        assert found["etag"]
        code, _, err = cli("state", "save", "k", "other", "--etag", "4711", "--first-write")
        assert code == 1
        assert "possible etag mismatch" in err
        (tmp_path / "value").write_bytes(b"\xff\x00")
        assert cli("state", "save", "b", "--value-file", str(tmp_path / "value"))[0] == 0
        assert json.loads(cli("state", "get", "b", "-o", "json")[1])["encoding"] == "base64"
        assert cli("state", "delete", "k", "--app-id", APP)[0] == 0
        code, out, err = cli("state", "get", "k")
        assert (code, out) == (1, "")
        assert "statestore has no value for k" in err

    def test_errors_of_the_node_are_sentences_with_their_reason(self, cli: Cli) -> None:
        code, out, err = cli("state", "get", "k", "--store", "nope")
        assert (code, out) == (1, "")
        assert "INVALID_ARGUMENT" in err
        assert "reason: DAPR_STATE_NOT_FOUND" in err

    def test_invoke_of_an_application_that_is_not_there(self, cli: Cli) -> None:
        code, _, err = cli("invoke", "--app-id", "ghost", "--method", "m", "--data", "{}", "--timeout", "20")
        assert code == 1
        assert "ghost" in err

    def test_components(self, cli: Cli) -> None:
        code, out, _ = cli("components", "list", "-o", "json")
        assert code == 0
        (row,) = json.loads(out)
        assert (row["app_id"], row["type"], row["state"]) == (APP, "state.in-memory", "ready")
        assert "ETAG" in row["capabilities"]

    def test_components_of_several_nodes(self, cli: Cli, tmp_path: Path) -> None:
        with second_node("second", tmp_path, resources=BROKEN):
            code, out, _ = cli("components", "list", "-o", "json")
            assert code == 0
            found = {row["app_id"]: row for row in json.loads(out)}
            assert found.keys() == {APP, "second"}
            assert found["second"]["state"] == "failed"
            assert "error initializing component broken" in found["second"]["message"]
            (row,) = json.loads(cli("components", "list", "--app-id", APP, "-o", "json")[1])
            assert row == found[APP]
            assert "second" in cli("components", "list")[1]

    def test_components_of_a_node_that_does_not_answer(self, cli: Cli, tmp_path: Path) -> None:
        with second_node("stopped", tmp_path) as stopped:
            stopped.process.popen.send_signal(signal.SIGSTOP)
            code, out, err = cli("components", "list", "--timeout", "2", "-o", "json")
            stopped.process.popen.send_signal(signal.SIGCONT)
        assert code == 1
        assert [row["app_id"] for row in json.loads(out)] == [APP]
        assert "stopped: the node at" in err
        assert "did not answer" in err

    def test_explain(self, cli: Cli) -> None:
        code, out, _ = cli("explain", "component", "statestore")
        assert code == 0
        assert "short" in out
        assert json.loads(cli("explain", "app", "x", "-o", "json")[1])["kind"] == "app"

    def test_breakers(self, cli: Cli) -> None:
        assert cli("breakers", "-o", "json")[:2] == (0, "[]\n")

    def test_logs(self, cli: Cli) -> None:
        code, out, _ = cli("logs", APP)
        assert code == 0
        assert "statestore" in out
        line = json.loads(cli("logs", APP, "-o", "jsonl", "--tail", "1")[1])
        assert line.keys() == {"time", "level", "scope", "message", "fields"}
        code, _, err = cli("logs", APP, "--source", "app")
        assert code == 1
        assert "is in no file" in err

    def test_completion_knows_what_runs(self, folders: Path) -> None:
        for words, expected in (
            (f"meshnode status {APP[:3]}", APP),
            ("meshnode state get k --store s", "statestore"),
        ):
            env = os.environ | {
                "_MESHNODE_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            }
            done = subprocess.run(
                [sys.executable, "-m", "meshnode"], env=env, capture_output=True, text=True, check=False
            )
            assert f"plain,{expected}" in done.stdout.splitlines(), done.stderr


def test_the_api_token_is_asked_for_and_taken_from_the_environment(
    folders: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "meshnode", "node", "--app-id", "guarded", "--dapr-grpc-port=0"]
    process = subprocess.Popen(
        [*command, "--ready-fd", str(writer)],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"DAPR_API_TOKEN": "secret"},
    )
    os.close(writer)
    with process, os.fdopen(reader) as reports:
        assert reports.readline()
        code, _, err = cli("state", "get", "k", "--app-id", "guarded")
        assert (code, "set DAPR_API_TOKEN" in err) == (1, True)
        monkeypatch.setenv("DAPR_API_TOKEN", "secret")
        assert "has no value" in cli("state", "get", "k", "--app-id", "guarded")[2]
        assert cli("stop", "guarded")[0] == 0
        assert process.wait(20) == 0


def test_no_node(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MESHNODE_RUNTIME_DIR", str(tmp_path))
    assert cli("list") == (0, "", "no node is running on this machine\n")
    assert cli("list", "-o", "json")[:2] == (0, "[]\n")
    code, _, err = cli("status")
    assert (code, "no node is running" in err) == (1, True)
    code, _, err = cli("status", "--address", "127.0.0.1:1", "--timeout", "5")
    assert (code, "127.0.0.1:1" in err) == (1, True)
    assert cli("stop", "nobody")[0] == 1
    assert cli("stop")[0] == 2


def test_components_of_a_sidecar_that_has_no_admin_api(cli: Cli) -> None:
    answer = runtime.GetMetadataResponse(
        id="other", registered_components=[runtime.RegisteredComponents("s", "state.redis", "v1", ["ETAG"])]
    )
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: bytes(answer))
    handlers = grpc.method_handlers_generic_handler("dapr.proto.runtime.v1.Dapr", {"GetMetadata": handler})
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        code, out, _ = cli("components", "list", "--address", f"127.0.0.1:{port}", "-o", "json")
    finally:
        server.stop(None).wait()
    assert code == 0
    assert json.loads(out) == [
        {
            "app_id": "other",
            "name": "s",
            "type": "state.redis",
            "version": "v1",
            "state": "",
            "capabilities": ["ETAG"],
            "message": "",
        }
    ]
