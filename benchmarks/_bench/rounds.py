"""The measuring: everything in turn, round after round, forwards and then backwards, so that what disturbs
the machine for a while disturbs all rows alike.

Imports this package's values and processes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, final

from attrs import field, frozen

from _bench.cpu import cpu_seconds
from _bench.measurement import Load, Order
from _bench.options import Options
from _bench.processes import Program, python, running
from _bench.requests import Request

__all__ = ["Result", "Subject", "measure"]

_STARTING = 20.0  # seconds


@frozen
class Subject:
    """One row: where the calls go, and whose CPU time is counted."""

    name: str
    target: str
    request: Request
    pids: Mapping[str, int]
    """By role, all but the client."""
    measured: tuple[str, ...]
    """Roles whose mean is *the* CPU time of the row: the hops of a chain, the server of a call."""


@final
@frozen
class Result:
    """All rounds of one row under one load."""

    subject: str
    load: Load
    rounds: list[dict[str, Any]] = field(factory=list)

    def column(self, *path: str) -> list[float | None]:
        """One figure of each round."""
        return [_dig(one, path) for one in self.rounds]


def _dig(value: Any, path: Sequence[str]) -> float | None:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def measure(subjects: Sequence[Subject], options: Options) -> list[Result]:
    """Measure all rows under all loads. Raises `Failure` when a program ends or hangs."""
    results = {(one.name, load): Result(one.name, load) for load in options.loads for one in subjects}
    with ExitStack() as stack:
        client = stack.enter_context(running("client", python("_bench.client", options.client), stdin=True))
        client.line(_STARTING)
        for number in range(options.rounds):
            for load in options.loads:
                for subject in subjects if number % 2 == 0 else reversed(subjects):
                    _progress(number, options, subject, load)
                    sample = _measure_once(client, subject, load, options, seed=number)
                    results[subject.name, load].rounds.append(sample)
    return list(results.values())


def _measure_once(
    client: Program, subject: Subject, load: Load, options: Options, seed: int
) -> dict[str, Any]:
    order = Order(
        target=subject.target, request=subject.request, load=load, seconds=options.seconds,
        max_calls=options.max_calls, warm_up=options.warm_up, seed=seed,
    )  # fmt: skip
    client.send(order.to_json())
    client.line(2 * order.patience)
    before = _cpu(subject)
    client.send({"go": True})
    sample = client.line(2 * order.patience)
    after = _cpu(subject)
    calls = max(sample["calls"], 1)
    cpu: dict[str, float | None] = {"client": sample.pop("client_cpu_us")}
    for role in subject.pids:
        begun, ended = before[role], after[role]
        cpu[role] = None if begun is None or ended is None else round((ended - begun) / calls * 1e6, 2)
    measured = [value for role in subject.measured if (value := cpu[role]) is not None]
    sample["cpu_us_per_call"] = cpu
    sample["cpu_us"] = round(sum(measured) / len(measured), 2) if measured else None
    return sample


def _cpu(subject: Subject) -> dict[str, float | None]:
    return {role: cpu_seconds(pid) for role, pid in subject.pids.items()}


def _progress(number: int, options: Options, subject: Subject, load: Load) -> None:
    if sys.stderr.isatty():
        text = f"round {number + 1} of {options.rounds}: {subject.name}, {load}"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        if number == options.rounds - 1 and load is options.loads[-1]:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
