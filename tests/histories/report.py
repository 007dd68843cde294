"""A line for each run, and the sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from histories.outbox import OutboxResult
from histories.run import Result

__all__ = ["heading", "line", "summary"]

_PUBSUB = (
    "published", "acknowledged", "republished", "received", "deliveries", "redeliveries", "duplicates",
    "unconfirmed", "lost", "dropped", "invented", "altered", "disordered",
)  # fmt: skip
_OUTBOX = (
    "transactions", "acknowledged", "committed", "late", "unknown", "saved", "received", "duplicates",
    "undone", "torn", "silent", "phantom", "invented",
)  # fmt: skip
_MOST = 10


def heading(*, outbox: bool) -> str:
    columns = [name.rjust(len(name)) for name in (_OUTBOX if outbox else _PUBSUB)]
    return " ".join(["seed ", *columns, "faults", "recovery", "plan"])


def line(result: Result | OutboxResult) -> str:
    """Figures below the heading's names, and what is wrong, if anything, on lines of its own."""
    names = _OUTBOX if isinstance(result, OutboxResult) else _PUBSUB
    columns = [str(_figure(result, name)).rjust(len(name)) for name in names]
    faults = str(sum(result.faults.values())).rjust(len("faults"))
    recovery = f"{result.recovery:.1f} s".rjust(len("recovery"))
    found = [" ".join([f"{result.plan.seed:<5}", *columns, faults, recovery, result.plan.describe()])]
    found += [f"      ! {one}" for one in result.violations[:_MOST]]
    if len(result.violations) > _MOST:
        found.append(f"      ! and {len(result.violations) - _MOST} more")
    return "\n".join(found)


def summary(results: Sequence[Result | OutboxResult], broken: Sequence[int]) -> str:
    faults = sum((Counter(result.faults) for result in results), Counter[str]())
    found = [f"{len(results)} runs"]
    if results:
        names = _OUTBOX if isinstance(results[0], OutboxResult) else _PUBSUB
        found += [f"{name:>14}  {sum(_figure(one, name) for one in results)}" for name in names]
        promised = [one for one in results if isinstance(one, Result) and one.plan.ordered]
        if promised:
            broken_order = sum(len(one.verdict.disordered) for one in promised)
            found.append(
                f"{'':>14}  {broken_order} of the disordered where order was promised ({len(promised)} runs)"
            )
        found.append(f"{'faults':>14}  " + ", ".join(f"{kind} {n}" for kind, n in sorted(faults.items())))
        found.append(f"{'recovery':>14}  {max(one.recovery for one in results):.1f} s at most")
    if broken:
        found.append("broken promises in seeds " + ",".join(map(str, sorted(broken))))
    return "\n".join(found)


def _figure(result: Result | OutboxResult, name: str) -> int:
    value = getattr(result.verdict, name)
    return value if isinstance(value, int) else len(value)
