"""Many seeds: a table, a summary, and the files of those that broke a promise."""

from __future__ import annotations

import argparse
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import trio

from histories.checker import Verdict
from histories.plan import plan_of
from histories.run import Result, run

_HEAD = (
    "seed   published  acknowl.  received  deliver.  redeliv.  duplic.  unconf.  lost  dropped  disorder"
    "  faults  recovery  plan"
)
_FIGURES = (
    "published", "acknowledged", "republished", "received", "deliveries", "redeliveries", "duplicates",
    "unconfirmed",
)  # fmt: skip
_FINDINGS = ("lost", "dropped", "invented", "altered", "disordered")


def main() -> int:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    results, broken = trio.run(_all, options)
    _summarise(results, broken)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m histories", description=__doc__)
    parser.add_argument("--broker", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--seeds", type=_seeds, default="1-10", help="like 1-100 or 3,7,12")
    parser.add_argument("--seconds", type=float, default=6, help="how long there are faults")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs' files")
    parser.add_argument("--keep", action="store_true", help="keep the files of all runs")
    return parser.parse_args()


def _seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


async def _all(options: argparse.Namespace) -> tuple[list[Result], list[int]]:
    results: list[Result] = []
    broken: list[int] = []
    places = trio.CapacityLimiter(options.jobs)
    print(_HEAD, flush=True)

    async def one(seed: int) -> None:
        async with places:
            folder = options.out / f"{options.broker}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                result = await run(plan_of(options.broker, seed, options.seconds), folder)
            except Exception:
                print(f"{seed:<5}  could not be played; see {folder}")
                traceback.print_exc(file=sys.stdout)
                broken.append(seed)
                return
            results.append(result)
            _print(result)
            if result.violations:
                broken.append(seed)
            elif not options.keep:
                shutil.rmtree(folder)

    async with trio.open_nursery() as nursery:
        for seed in options.seeds:
            nursery.start_soon(one, seed)
    return results, broken


def _print(result: Result) -> None:
    verdict, plan = result.verdict, result.plan
    figures = (
        f"{plan.seed:<5}  {verdict.published:>9}  {verdict.acknowledged:>8}  {verdict.received:>8}"
        f"  {verdict.deliveries:>8}  {verdict.redeliveries:>8}  {verdict.duplicates:>7}"
        f"  {verdict.unconfirmed:>7}  {len(verdict.lost):>4}  {len(verdict.dropped):>7}"
        f"  {len(verdict.disordered):>8}  {sum(result.faults.values()):>6}  {result.recovery:>6.1f} s"
    )
    print(f"{figures}  {plan.describe()}", flush=True)
    for line in result.violations[:10]:
        print(f"       ! {line}", flush=True)


def _summarise(results: Sequence[Result], broken: Sequence[int]) -> None:
    verdicts = [result.verdict for result in results]
    faults = sum((Counter(result.faults) for result in results), Counter[str]())
    print(f"\n{len(results)} runs")
    for name in _FIGURES:
        print(f"{name:>14}  {sum(getattr(one, name) for one in verdicts)}")
    for name in _FINDINGS:
        print(f"{name:>14}  {_in_all(name, verdicts)}")
    print("        faults  " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())))
    slowest = max((result.recovery for result in results), default=0.0)
    print(f"{'recovery':>14}  {slowest:.1f} s at most")
    if broken:
        print("broken promises in seeds " + ",".join(map(str, sorted(broken))))


def _in_all(name: str, verdicts: Sequence[Verdict]) -> int:
    return sum(len(getattr(one, name)) for one in verdicts)


if __name__ == "__main__":
    sys.exit(main())
