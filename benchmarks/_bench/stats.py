"""Figures of a measurement, and of several measurements of the same thing. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import median

from attrs import frozen

__all__ = ["Spread", "latency_summary", "percentile", "ratios", "spread"]


@frozen
class Spread:
    """The median of several rounds, and between which values they lay."""

    median: float
    low: float
    high: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; `ordered` is sorted."""
    if not ordered:
        return 0.0
    rank = ceil(len(ordered) * share - 1e-9)  # 0.9 of ten values is nine of them, whatever floats say
    return ordered[max(rank, 1) - 1]


def latency_summary(nanoseconds: Iterable[int]) -> dict[str, float]:
    """Latencies in milliseconds, as they go into the tables."""
    ordered = sorted(nanoseconds)
    points = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(ordered, share) / 1e6, 4) for name, share in points.items()}


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of the values that are there."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(median(known), min(known), max(known))


def ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Spread | None:
    """Round by round: what disturbs a machine for a while disturbs both of a pair."""
    pairs = zip(ours, theirs, strict=False)
    return spread(own / other if own is not None and other else None for own, other in pairs)
