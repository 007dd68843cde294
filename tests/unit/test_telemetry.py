"""Logs as Dapr's users know them, their watchers, and the trace context that hops hand on."""

from __future__ import annotations

import io
import json
import logging
import random
import shlex
from collections.abc import Iterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshnode.telemetry.logs import LogTail, configure_logging
from meshnode.telemetry.tracecontext import next_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """The logger of all nodes, as it was afterwards."""
    logger = logging.getLogger("meshnode")
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


def configured(*, as_json: bool) -> io.StringIO:
    stream = io.StringIO()
    configure_logging("info", as_json=as_json, app_id="orders", instance="host one", stream=stream)
    return stream


def test_text_is_logfmt(log: logging.Logger) -> None:
    stream = configured(as_json=False)
    log.getChild("x").info('said "%s"\nand left', "hi", extra={"fields": {"method": "/a/B", "n": 3}})
    log.getChild("x").debug("not at this level")
    [line] = stream.getvalue().splitlines()
    pairs = dict(word.split("=", 1) for word in shlex.split(line))
    assert pairs["level"] == "info"
    assert pairs["msg"] == r'said "hi"\nand left'
    assert (pairs["app_id"], pairs["instance"], pairs["scope"]) == ("orders", "host one", "meshnode.x")
    assert (pairs["type"], pairs["method"], pairs["n"]) == ("log", "/a/B", "3")
    assert pairs["time"].endswith("Z")
    assert 'msg="' in line
    assert "app_id=orders " in line


def test_json_has_the_same_keys_and_the_traceback(log: logging.Logger) -> None:
    stream = configured(as_json=True)
    try:
        raise ValueError("broken")
    except ValueError:
        log.getChild("x").exception("it failed")
    record = json.loads(stream.getvalue())
    assert record["level"] == "error"
    assert record["msg"].startswith("it failed\nTraceback")
    assert record["msg"].endswith("ValueError: broken")
    assert {"time", "level", "msg", "app_id", "instance", "scope", "type", "ver"} == record.keys()


async def test_records_from_a_worker_thread_reach_a_watcher_that_waits(log: logging.Logger) -> None:
    tail = LogTail()
    log.addHandler(tail)
    log.setLevel(logging.INFO)
    child = log.getChild("driver")
    with tail.watch() as records, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            heard: list[str] = []

            async def listen() -> None:
                heard.extend([(await records.receive()).message, (await records.receive()).message])

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(child.info, "from a thread")
            child.info("from a task")
    assert heard == ["from a thread", "from a task"]
    await trio.to_thread.run_sync(child.info, "nobody watches any more")
    assert tail.kept()[-1].message == "nobody watches any more"


async def test_a_slow_watcher_loses_records_and_the_tail_forgets_old_ones(log: logging.Logger) -> None:
    tail = LogTail()
    log.addHandler(tail)
    log.setLevel(logging.INFO)
    with tail.watch() as records:
        for number in range(3000):
            log.info("%d", number)
        tail.end_watches()
        heard = [record.message async for record in records]
    assert heard == [str(number) for number in range(len(heard))]
    assert 0 < len(heard) < 3000
    kept = [entry.message for entry in tail.kept()]
    assert kept == [str(number) for number in range(3000 - len(kept), 3000)]
    assert len(kept) < 3000


def test_a_trace_goes_on_with_a_span_of_its_own() -> None:
    rng = random.Random(1)
    after = next_traceparent(f"00-{TRACE}-{SPAN}-01".encode(), rng).decode()
    version, trace, span, flags = after.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert len(span) == 16


@pytest.mark.parametrize(
    "incoming",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)
def test_without_a_usable_trace_a_new_one_begins(incoming: str | None) -> None:
    after = next_traceparent(None if incoming is None else incoming.encode(), random.Random(1)).decode()
    version, trace, span, flags = after.split("-")
    assert (version, flags) == ("00", "00")
    assert trace.lower() not in (TRACE, "0" * 32)
    assert span != "0" * 16


@given(st.binary(max_size=80), st.integers(0, 1000))
def test_whatever_comes_in_a_traceparent_goes_out(incoming: bytes, seed: int) -> None:
    again = next_traceparent(next_traceparent(incoming, random.Random(seed)), random.Random(seed + 1))
    version, trace, span, flags = again.decode("ascii").split("-")
    assert [len(part) for part in (version, trace, span, flags)] == [2, 32, 16, 2]
