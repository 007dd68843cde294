"""`meshnode run` as a user has it: real processes, a real node, a real Dapr SDK."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from support.processes import wait_until
from support.redis_servers import free_port

from meshnode.cli._records import live_records, wait_gone

PROBE = """
import os, urllib.error, urllib.request
from dapr.clients import DaprClient

def status(path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}{path}").status
    except urllib.error.HTTPError as error:
        return error.code

print("outbound", status("/v1.0/healthz/outbound"), "other", status("/v1.0/metadata"))
with DaprClient() as client:
    client.save_state("statestore", "key", "value")
    print("state", client.get_state("statestore", "key").data.decode())
print("id", os.environ["APP_ID"], os.environ["DAPR_API_METHOD_INVOCATION_PROTOCOL"])
print("last words", flush=True)
os._exit(7)
"""
WAIT = """
import signal, sys
def end(number, frame):
    open("ended", "w").close()
    print("app got", signal.Signals(number).name, flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
print("waiting", flush=True)
while True:
    signal.pause()
"""
SLOW = """
import os, time
from dapr.ext.grpc import App, SubscriptionMessage

app = App()

@app.subscribe(pubsub_name="pubsub", topic="orders", dead_letter_topic="dead")
def order(event: SubscriptionMessage) -> None:
    print("began", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.02)
    print("finished", flush=True)

@app.subscribe(pubsub_name="pubsub", topic="dead")
def dead(event: SubscriptionMessage) -> None:
    print("dead letter", flush=True)

print("serving", flush=True)
app.run(int(os.environ["APP_PORT"]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHNODE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MESHNODE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MESHNODE_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "wait.py").write_text(WAIT)
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "store.yaml").write_text(
        textwrap.dedent("""
            apiVersion: dapr.io/v1alpha1
            kind: Component
            metadata: {name: statestore}
            spec: {type: state.in-memory, version: v1}
        """)
    )
    return tmp_path


def start(folder: Path, args: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "meshnode", "run", *args]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def until(lines: IO[str], wanted: str) -> str:
    for line in lines:
        if wanted in line:
            return line
    raise AssertionError(f"the output ended without {wanted!r}")


ONE = ("--app-id", "one", "--resources-path", "resources")


def test_an_application_with_the_sdk(folder: Path) -> None:
    code, out, err = finish(start(folder, [*ONE, "--", sys.executable, "probe.py"]))
    app = [line.removeprefix("== APP  == ") for line in out.splitlines() if line.startswith("== APP  == ")]
    assert app == ["outbound 204 other 404", "state value", "id one grpc", "last words"], err
    assert code == 7
    assert "== NODE == " in out
    assert "one: node ready" in err
    logs = sorted(path.name.split(".")[0] for path in (folder / "state" / "logs").iterdir())
    assert logs == ["one-app", "one-node"]
    assert list((folder / "run").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 5), (signal.SIGINT, 130)])
def test_signals(folder: Path, number: int, code: int) -> None:
    process = start(folder, [*ONE, "--", sys.executable, "wait.py"])
    assert process.stdout is not None
    until(process.stdout, "waiting")
    process.send_signal(number)
    returncode, out, _ = finish(process)
    assert returncode == code
    assert f"app got {signal.Signals(number).name}" in out
    assert out.index("app got") < out.index("Shutdown complete")


def test_an_event_under_way_is_finished_before_the_application_ends(folder: Path) -> None:
    """The application ends at once when it is asked to; so it is asked when the event is done."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "resources" / "pubsub.yaml").write_text(
        textwrap.dedent("""
            apiVersion: dapr.io/v1alpha1
            kind: Component
            metadata: {name: pubsub}
            spec: {type: pubsub.in-memory, version: v1}
        """)
    )
    port = str(free_port())
    process = start(folder, [*ONE, "--app-port", port, "--", sys.executable, "slow.py"])
    assert process.stdout is not None
    until(process.stdout, "subscribed to topic orders")
    publish = ["publish", "orders", "--data", "1", "--app-id", "one"]
    done = subprocess.run([sys.executable, "-m", "meshnode", *publish], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    until(process.stdout, "began")
    process.send_signal(signal.SIGTERM)
    until(process.stdout, "Taking no more events")
    (folder / "go").touch()
    _, out, err = finish(process)
    assert "finished" in out
    assert "dead letter" not in out
    assert out.index("finished") < out.index("Shutdown complete"), err


def test_stop_from_another_terminal(folder: Path) -> None:
    process = start(folder, [*ONE, "--", sys.executable, "wait.py"])
    assert process.stdout is not None
    until(process.stdout, "waiting")
    done = subprocess.run([sys.executable, "-m", "meshnode", "stop", "one"], check=False, capture_output=True)
    assert done.returncode == 0
    returncode, out, _ = finish(process)
    assert returncode == 5
    assert "app got SIGTERM" in out


def test_the_node_is_killed(folder: Path) -> None:
    process = start(folder, [*ONE, "--", sys.executable, "wait.py"])
    assert process.stdout is not None
    until(process.stdout, "waiting")
    record = next((folder / "run").glob("*.json"))
    os.kill(int(record.stem), signal.SIGKILL)
    returncode, out, err = finish(process)
    assert returncode == 1
    assert "app got SIGTERM" in out
    assert "the node ended by itself" in err


def test_run_is_killed(folder: Path) -> None:
    process = start(folder, [*ONE, "--", sys.executable, "wait.py"])
    assert process.stdout is not None
    until(process.stdout, "waiting")
    (record,) = live_records()
    process.kill()
    finish(process)
    wait_gone(record)
    wait_until((folder / "ended").exists, what="the end of the application")


def test_resources_that_cannot_be_used(folder: Path) -> None:
    (folder / "resources" / "store.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec: {typ: x}\n"
    )
    code, out, err = finish(start(folder, [*ONE, "--", sys.executable, "wait.py"]))
    assert code == 2
    assert "waiting" not in out
    assert "typ" in out
    assert "the application was not started" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--app-id", "x", "--app-protocol", "http"], "the node speaks gRPC only"),
        (["--app-idd", "x"], "did you mean --app-id?"),
        (["-f", "nowhere.yaml"], "nowhere.yaml"),
        (["-f", "mesh.yaml", "--app-port", "1"], "cannot hold for every application"),
        (["--app-id", "x", "--until", "y"], "--until"),
    ],
)
def test_mistakes_start_nothing(folder: Path, args: list[str], message: str) -> None:
    command = [] if "-f" in args else ["--", sys.executable, "wait.py"]
    code, out, err = finish(start(folder, [*args, *command]))
    assert (code, out) == (2, "")
    assert message in err


def test_a_program_that_is_not_there(folder: Path) -> None:
    code, out, err = finish(start(folder, [*ONE, "--", "pythn3", "app.py"]))
    assert (code, out) == (2, "")
    assert "one: there is no program pythn3" in err
    assert "did you mean python3?" in err


@pytest.fixture
def mesh_file(folder: Path) -> Path:
    path = folder / "mesh.yaml"
    path.write_text(
        textwrap.dedent(f"""
            version: 1
            common:
              resourcesPaths: [resources]
              env: {{SHARED: yes-shared}}
            apps:
              - appID: server
                appDirPath: .
                command: [{sys.executable}, wait.py]
                metricsPort: 9090
              - appID: client
                appDirPath: .
                env: {{OWN: yes-own}}
                command: [{sys.executable}, -c, "import os; print(os.environ['SHARED'], os.environ['OWN'])"]
        """)
    )
    return path


def test_several_applications(mesh_file: Path) -> None:
    code, out, err = finish(start(mesh_file.parent, ["-f", "mesh.yaml", "--until", "client"]))
    assert code == 0
    assert "== APP - client  == yes-shared yes-own\n" in out
    assert "NODE" not in out
    assert "server: metrics-port is passed over" in err
    assert len(list((mesh_file.parent / "state" / "logs").iterdir())) == 4


def test_an_application_that_fails_ends_the_others(mesh_file: Path) -> None:
    mesh_file.write_text(mesh_file.read_text().replace("os.environ['OWN']", "exit(3)"))
    code, out, _ = finish(start(mesh_file.parent, ["-f", "."]))
    assert code == 3
    assert "Traceback" not in out
