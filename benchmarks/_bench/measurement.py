"""What the client is told to do, and what it reports. Imports attrs and this package's values."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol, TypeVar, final

from attrs import field, frozen

from _bench.requests import Request
from _bench.stats import latency_summary

__all__ = ["Engine", "Gate", "Load", "Order", "Recorder"]

T = TypeVar("T")
Gate = Callable[[], None]
"""Called when all is warm; returns when the measurement may begin."""


@frozen
class Load:
    """Closed loop: `in_flight` callers, each with one call at a time. Open loop: calls at a fixed `rate`,
    whether or not the earlier ones have been answered.
    """

    in_flight: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.in_flight} in flight" if self.rate is None else f"{self.rate:g}/s open"

    def to_json(self) -> dict[str, Any]:
        if self.rate is None:
            return {"mode": "closed", "in_flight": self.in_flight}
        return {"mode": "open", "rate": self.rate}


@frozen
class Order:
    """One measurement."""

    target: str
    request: Request
    load: Load
    seconds: float
    max_calls: int
    warm_up: int
    seed: int

    @property
    def patience(self) -> float:
        """Seconds after which a measurement is given up."""
        return 10 + 5 * self.seconds

    def calls(self, warm_rate: float) -> int:
        """How many calls fill the time; `warm_rate` is how many the warm-up made a second."""
        wanted = int(self.seconds * (self.load.rate or warm_rate))
        return max(self.load.in_flight or 1, min(wanted, self.max_calls))

    def to_json(self) -> dict[str, Any]:
        load = {"in_flight": self.load.in_flight, "rate": self.load.rate}
        return {
            "target": self.target, "request": self.request.to_json(), "load": load, "seconds": self.seconds,
            "max_calls": self.max_calls, "warm_up": self.warm_up, "seed": self.seed,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Order:
        request, load = Request.from_json(value["request"]), Load(**value["load"])
        return cls(**(value | {"request": request, "load": load}))


class Engine(Protocol):
    """A client library under load: warm up, call the gate, measure."""

    def __call__(self, order: Order, gate: Gate) -> Recorder: ...


@final
@frozen
class Recorder:
    """What became of the calls. Latencies are of those that succeeded."""

    planned: int
    latencies: array[int] = field(factory=lambda: array("q"))
    errors: Counter[str] = field(factory=Counter)
    times: dict[str, float] = field(factory=dict)

    def begin(self) -> None:
        self.times["wall"], self.times["cpu"] = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """What is neither answered nor failed by now is unfinished."""
        self.times["wall"] = time.perf_counter() - self.times["wall"]
        self.times["cpu"] = time.process_time() - self.times["cpu"]
        left = self.planned - len(self.latencies) - self.errors.total()
        if left:
            self.errors["unfinished"] += left

    @property
    def rate(self) -> float:
        """Calls that succeeded, per second."""
        return len(self.latencies) / self.times["wall"]

    def to_json(self) -> dict[str, Any]:
        calls = max(len(self.latencies), 1)
        return {
            "calls": len(self.latencies),
            "errors": dict(self.errors),
            "seconds": round(self.times["wall"], 4),
            "calls_per_second": round(self.rate, 1),
            "latency_ms": latency_summary(self.latencies),
            "client_cpu_us": round(self.times["cpu"] / calls * 1e6, 2),
        }


def shortened(items: Any, count: int) -> list[Any]:
    """The next `count` items, made now, so that making them is not measured."""
    return list(islice(items, count))
