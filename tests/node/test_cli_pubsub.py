"""`meshnode publish` and `meshnode subscribe` against a real node: what is printed is acknowledged, what is
not goes back, and nothing stays behind.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2
from support.processes import Node, Process, node, process, surroundings_of, wait_until

from meshnode.cli._app import main

MESHNODE = [sys.executable, "-m", "meshnode"]
RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: orders-pubsub}
spec:
  type: pubsub.in-memory
  version: v1
  metadata: [{name: redeliverInterval, value: 1h}]
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {minute: 60s}
    retries: {some: {policy: constant, duration: 1s, maxRetries: 3}}
  targets:
    components: {orders-pubsub: {inbound: {timeout: minute, retry: some}}}
"""
SECOND = """
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: pubsub.in-memory, version: v1}
"""


class Done(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli-pubsub")


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Node]:
    """A node with one pub/sub component. A message that is given back comes at once, one that failed not."""
    with node("shop", home, resources=RESOURCES) as found:
        yield found


@pytest.fixture
def cli(
    running: Node, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """A command in the test's own process: exit code, standard output, standard error."""
    for name, value in surroundings_of(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("DAPR_GRPC_PORT", "DAPR_GRPC_ENDPOINT", "DAPR_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str) -> Done:
        code = main(args)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@contextmanager
def subscriber(home: Path, running: Node, *args: str) -> Iterator[Process]:
    """`meshnode subscribe` once it is subscribed."""
    command = [*MESHNODE, "subscribe", *args]
    before = len(subscriptions(running))
    with process(command, env={**surroundings_of(home), "NO_COLOR": "1"}) as started:
        wait_until(lambda: len(subscriptions(running)) == before + 1, what="the subscription")
        yield started


def subscriptions(running: Node) -> Sequence[Any]:
    with grpc.insecure_channel(running.address) as channel:
        found = dapr_pb2_grpc.DaprStub(channel).GetMetadata(metadata_pb2.GetMetadataRequest())
    return list(found.subscriptions)


def rows(printed: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.lines if line.startswith("{")]


def values(done: Done) -> list[Any]:
    """The data of the events that a command printed which has ended well."""
    assert done.code == 0, done.err
    return [json.loads(line)["value"] for line in done.out.splitlines()]


def test_events_are_printed_and_the_command_ends_after_so_many(
    running: Node, home: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\x00")
    with subscriber(home, running, "orders", "--count", "5", "-o", "jsonl") as printed:
        done = cli("publish", "orders", "--data", '{"n": 1}')
        assert (done.code, done.out) == (0, "")
        assert done.err == "published to orders of orders-pubsub\n"
        dapr_way = ("--publish-app-id", "shop", "--pubsub", "orders-pubsub", "--topic", "orders")
        metadata = ("--metadata", '{"cloudevent.type": "note"}', "--metadata", "cloudevent.source=me")
        done = cli("publish", *dapr_way, "--data", "text", *metadata, "-o", "json")
        assert json.loads(done.out) == {
            "pubsub": "orders-pubsub",
            "topic": "orders",
            "result": "published",
        }
        assert cli("publish", "orders", "--data-file", str(tmp_path / "bytes")).code == 0
        event = '{"specversion": "1.0", "id": "own", "type": "t", "source": "s", "data": [1]}'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(event.encode())))
        assert cli("publish", "orders", "--data-file", "-").code == 0
        assert cli("publish", "orders", "-d", "7", "--content-type", "text/plain").code == 0
        assert printed.popen.wait(30) == 0
    first, second, third, fourth, fifth = rows(printed)
    assert (first["value"], first["encoding"], first["content_type"]) == (
        {"n": 1},
        "json",
        "application/json",
    )
    assert (first["source"], first["topic"], first["pubsub"]) == ("shop", "orders", "orders-pubsub")
    assert first["extensions"].keys() >= {"time", "traceparent"}
    assert (second["value"], second["type"], second["source"]) == ("text", "note", "me")
    assert second["content_type"] == "text/plain"
    assert (third["value"], third["encoding"]) == ("/wA=", "base64")
    assert (fourth["id"], fourth["value"]) == ("own", [1])
    assert (fifth["value"], fifth["content_type"]) == (7, "text/plain")
    assert subscriptions(running) == []


def test_a_line_for_people(running: Node, home: Path, cli: Cli) -> None:
    with subscriber(home, running, "lines", "-n", "1") as printed:
        assert cli("publish", "lines", "-d", "two\nlines").code == 0
        assert printed.popen.wait(30) == 0
    said, line = printed.lines
    assert said == "subscribed to lines of orders-pubsub; Ctrl-C ends"
    when, source, text = line.split(" ", 2)
    assert when.endswith("Z")
    assert (source, text) == ("shop", "two\\nlines")


def test_raw_messages(running: Node, home: Path, cli: Cli) -> None:
    with subscriber(home, running, "raw", "--raw", "-n", "1", "-o", "jsonl") as printed:
        assert cli("publish", "raw", "-d", '{"not": "an event"}', "-m", "rawPayload=true").code == 0
        assert printed.popen.wait(30) == 0
    (row,) = rows(printed)
    assert row["value"] == {"not": "an event"}
    assert row["content_type"] == "application/octet-stream"


def test_what_was_printed_is_acknowledged_and_the_rest_goes_back(running: Node, home: Path, cli: Cli) -> None:
    with subscriber(home, running, "shared", "-n", "1", "-o", "jsonl") as first:
        # One that is printed, and three that may be on their way when the command ends.
        for number in range(4):
            assert cli("publish", "shared", "-d", str(number)).code == 0
        assert first.popen.wait(30) == 0
    assert [row["value"] for row in rows(first)] == [0]
    assert values(cli("subscribe", "shared", "-n", "3", "-o", "jsonl")) == [1, 2, 3]


def test_ctrl_c_leaves_nothing_behind(running: Node, home: Path, cli: Cli) -> None:
    with subscriber(home, running, "interrupted", "-o", "jsonl") as first:
        assert cli("publish", "interrupted", "-d", "1").code == 0
        first.wait_for('"value": 1')
        assert first.end(signal.SIGINT) == 130
    assert "Traceback" not in first.output
    wait_until(lambda: subscriptions(running) == [], what="the end of the subscription")
    assert cli("publish", "interrupted", "-d", "2").code == 0
    assert values(cli("subscribe", "interrupted", "-n", "1", "-o", "jsonl")) == [2]


def test_ctrl_c_before_anything_has_come(running: Node, home: Path) -> None:
    with subscriber(home, running, "silent") as printed:
        assert printed.end(signal.SIGINT) == 130
    assert printed.output.strip() == "subscribed to silent of orders-pubsub; Ctrl-C ends"
    wait_until(lambda: subscriptions(running) == [], what="the end of the subscription")


def test_a_reader_that_goes_away_is_no_error_and_its_event_goes_back(
    running: Node, home: Path, cli: Cli
) -> None:
    env = {**os.environ, **surroundings_of(home)}
    command = [*MESHNODE, "subscribe", "pipe", "-o", "jsonl"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as gone:
        assert gone.stdout is not None
        assert gone.stderr is not None
        wait_until(lambda: len(subscriptions(running)) == 1, what="the subscription")
        gone.stdout.close()
        assert cli("publish", "pipe", "-d", "1").code == 0
        assert gone.wait(30) == 0
        assert gone.stderr.read() == ""
    assert values(cli("subscribe", "pipe", "-n", "1", "-o", "jsonl")) == [1]


def test_two_subscribers_share_a_topic(running: Node, home: Path, cli: Cli) -> None:
    with (
        subscriber(home, running, "both", "-o", "jsonl") as one,
        subscriber(home, running, "both", "-o", "jsonl") as two,
    ):
        for number in range(6):
            assert cli("publish", "both", "-d", str(number)).code == 0
        wait_until(lambda: len(rows(one)) + len(rows(two)) >= 6, what="the last event")
        codes = [one.end(signal.SIGINT), two.end(signal.SIGINT)]
    assert codes == [130, 130]
    assert sorted(row["value"] for row in [*rows(one), *rows(two)]) == list(range(6))


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("publish",), 2, "a topic is needed"),
        (("publish", "a", "--topic", "b"), 2, "two topics"),
        (("publish", "a", "-d", "x", "-f", "y"), 2, "exclude each other"),
        (("publish", "a", "-m", "novalue"), 2, "is not KEY=VALUE"),
        (("publish", "a", "-m", "{nojson"), 2, "is not JSON"),
        (("publish", "a", "-f", "no-such-file"), 1, "no-such-file"),
        (("publish", "a", "-p", "ghost"), 1, "pubsub ghost is not found"),
        (("publish", "a", "-m", "ttlInSeconds=soon"), 1, "INVALID_ARGUMENT"),
        (("publish", "a", "--content-type", "application/cloudevents+json", "-d", "{"), 1, "cloudevent"),
        (("subscribe",), 2, "topic"),
        (("subscribe", "a", "-n", "0"), 2, "0 is not in the range"),
        (("subscribe", "a", "-p", "ghost"), 1, "pubsub ghost is not found"),
        (("subscribe", "a", "--address", "127.0.0.1:1"), 1, "cannot be reached"),
        (("subscribe", "a", "--app-id", "shep"), 1, "did you mean shop?"),
    ],
)
def test_what_cannot_be(cli: Cli, args: tuple[str, ...], code: int, said: str) -> None:
    done = cli(*args)
    assert (done.code, done.out) == (code, "")
    assert said in done.err.lower() if said.islower() else said in done.err
    assert "Traceback" not in done.err


def test_a_node_that_shuts_down_ends_the_subscriber(tmp_path: Path) -> None:
    with node("short", tmp_path, resources=RESOURCES) as running:
        with subscriber(tmp_path, running, "orders") as printed:
            assert running.process.end() == 0
            assert printed.popen.wait(30) == 1
        assert "the node is shutting down" in printed.output
        assert "Traceback" not in printed.output


def test_of_several_components_the_usual_name_is_meant(tmp_path: Path) -> None:
    with node("two", tmp_path, resources=RESOURCES + SECOND) as running:
        with subscriber(tmp_path, running, "orders", "-n", "1") as printed:
            command = [*MESHNODE, "publish", "orders", "-d", "x"]
            done = subprocess.run(
                command, env={**os.environ, **surroundings_of(tmp_path)}, capture_output=True, text=True
            )
            assert done.stderr == "published to orders of pubsub\n"
            assert printed.popen.wait(30) == 0
        env = {
            **os.environ,
            **surroundings_of(tmp_path),
            "_MESHNODE_COMPLETE": "bash_complete",
            "COMP_WORDS": "meshnode subscribe t --pubsub ",
            "COMP_CWORD": "4",
        }
        done = subprocess.run(MESHNODE, env=env, capture_output=True, text=True)
        assert done.stdout.split() == ["plain,orders-pubsub", "plain,pubsub"]
