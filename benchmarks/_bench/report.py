"""Results as tables for people and as JSON for programs. Imports this package's values."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from _bench.machine import empty_nursery_us
from _bench.options import Options
from _bench.rounds import Result
from _bench.stats import Spread, ratios, spread

__all__ = ["Pair", "cell", "document", "publish", "save_json", "surroundings", "table"]

_LATENCIES = ("p50", "p90", "p99", "max")


@frozen
class Pair:
    """Two rows that are compared round by round."""

    ours: str
    theirs: str
    cpu: bool = True
    """Whether their CPU times mean the same thing."""


def publish(
    name: str, results: Sequence[Result], pairs: Sequence[Pair], options: Options, cpu_of: str
) -> None:
    """Print the tables, write the file. `cpu_of` says whose CPU time the main column shows."""
    print(f"{name}: medians of {options.rounds} rounds (lowest–highest), {options.size} bytes, "
          f"{'varying' if options.varying else 'the same'} headers, client: {options.client}\n")  # fmt: skip
    titles = [
        "",
        "load",
        "calls/s",
        "p50 ms",
        "p90",
        "p99",
        "max",
        f"CPU µs {cpu_of}",
        "each process",
        "errors",
    ]
    print(table(titles, [_row(one) for one in results]))
    where = surroundings()
    print(f"\nIn the same minute an empty trio nursery took {where['empty_nursery_us']:g} µs of CPU time.")
    compared = _compared(results, pairs)
    if compared:
        titles = ["round by round", "load", "CPU ratio", "p50 ratio", "p50 added ms", "calls/s ratio"]
        rows = [[one["title"], one["load"], *(cell(one[name]) for name in _RATIOS)] for one in compared]
        print("\n" + table(titles, rows))
    save_json(options.json, document(name, results, pairs, options, where))


def save_json(file: Path | None, value: dict[str, Any]) -> None:
    """To the file that `--json` names, if it names one."""
    if file is not None:
        file.write_text(json.dumps(_jsonable(value), indent=1) + "\n", encoding="utf-8")


def surroundings() -> dict[str, Any]:
    """Where and when it was measured."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "meshnode": version("meshnode"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "empty_nursery_us": empty_nursery_us(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def document(
    name: str, results: Sequence[Result], pairs: Sequence[Pair], options: Options, where: dict[str, Any]
) -> dict[str, Any]:
    """All there is to know of a run."""
    return {
        "benchmark": name,
        "surroundings": where,
        "options": options.to_json(),
        "results": [_result(one) for one in results],
        "comparisons": _compared(results, pairs),
    }


def _result(one: Result) -> dict[str, Any]:
    summary = {name: spread(one.column(name)) for name in ("calls_per_second", "cpu_us")}
    summary |= {f"{name}_ms": spread(one.column("latency_ms", name)) for name in _LATENCIES}
    return {
        "subject": one.subject,
        "load": one.load.to_json(),
        "summary": summary,
        "rounds": one.rounds,
    }


def _jsonable(value: Any) -> Any:
    if isinstance(value, Spread):
        return {name: round(number, 4) for name, number in asdict(value).items()}
    if isinstance(value, dict):
        return {name: _jsonable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


# --- comparing

_RATIOS = ("cpu", "p50", "p50_added_ms", "calls_per_second")


def _compared(results: Sequence[Result], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    found = {(one.subject, one.load): one for one in results}
    rows = []
    for pair in pairs:
        for (subject, load), ours in found.items():
            theirs = found.get((pair.theirs, load))
            if subject != pair.ours or theirs is None:
                continue
            own_p50, other_p50 = ours.column("latency_ms", "p50"), theirs.column("latency_ms", "p50")
            rows.append(
                {
                    "title": f"{pair.ours} ÷ {pair.theirs}",
                    "load": str(load),
                    "cpu": ratios(ours.column("cpu_us"), theirs.column("cpu_us")) if pair.cpu else None,
                    "p50": ratios(own_p50, other_p50),
                    "p50_added_ms": spread(
                        own - other
                        for own, other in zip(own_p50, other_p50, strict=False)
                        if own is not None and other is not None
                    ),
                    "calls_per_second": ratios(
                        ours.column("calls_per_second"), theirs.column("calls_per_second")
                    ),
                }
            )
    return rows


# --- tables


def _row(one: Result) -> list[str]:
    latencies = [cell(spread(one.column("latency_ms", name)), short=name != "p50") for name in _LATENCIES]
    roles = one.rounds[0]["cpu_us_per_call"] if one.rounds else {}
    each = [f"{role} {cell(spread(one.column('cpu_us_per_call', role)), short=True)}" for role in roles]
    errors: dict[str, int] = {}
    for sample in one.rounds:
        for kind, count in sample["errors"].items():
            errors[kind] = errors.get(kind, 0) + count
    return [
        one.subject, str(one.load), cell(spread(one.column("calls_per_second"))), *latencies,
        cell(spread(one.column("cpu_us"))), ", ".join(each),
        ", ".join(f"{count} {kind}" for kind, count in errors.items()) or "0",
    ]  # fmt: skip


def cell(value: Spread | None, short: bool = False) -> str:
    """A figure in a table: the median, and the range unless `short`."""
    if value is None:
        return "-"
    if short or value.low == value.high:
        return _number(value.median)
    return f"{_number(value.median)} ({_number(value.low)}–{_number(value.high)})"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns, wide as they need to be: they are read in terminals, files and mails alike."""
    widths = [max(len(row[index]) for row in [titles, *rows]) for index in range(len(titles))]
    lines = []
    for number, row in enumerate([titles, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)
