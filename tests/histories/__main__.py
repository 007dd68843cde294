"""Many seeds: a table, a summary, and the files of those runs that broke a promise."""

from __future__ import annotations

import argparse
import shutil
import sys
import traceback
from pathlib import Path

import trio

from histories.outbox import OutboxResult, outbox_plan, run_outbox
from histories.plan import plan_of
from histories.report import heading, line, summary
from histories.run import Result, run


def main() -> int:
    """Exit code 1 where a promise was broken or a run could not be played."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    results, broken = trio.run(_all, options)
    print(f"\n{summary(results, broken)}")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m histories", description=__doc__)
    parser.add_argument("--broker", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--outbox", action="store_true", help="transactions with an outbox, all on SQLite")
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


async def _all(options: argparse.Namespace) -> tuple[list[Result | OutboxResult], list[int]]:
    results: list[Result | OutboxResult] = []
    broken: list[int] = []
    seeds = iter(options.seeds)
    print(heading(outbox=options.outbox), flush=True)

    async def work() -> None:
        for seed in seeds:
            try:
                result = await _played(options, seed)
            except Exception:  # a run that fails is that run's; the others go on
                print(f"{seed:<5} could not be played")
                traceback.print_exc(file=sys.stdout)
                broken.append(seed)
                continue
            results.append(result)
            if result.violations:
                broken.append(seed)
            print(line(result), flush=True)

    async with trio.open_nursery() as nursery:
        for _ in range(options.jobs):
            nursery.start_soon(work)
    return results, broken


async def _played(options: argparse.Namespace, seed: int) -> Result | OutboxResult:
    """The files of a run that broke nothing go."""
    folder = options.out / f"{'outbox' if options.outbox else options.broker}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    result: Result | OutboxResult
    if options.outbox:
        result = await run_outbox(outbox_plan(seed, options.seconds), folder)
    else:
        result = await run(plan_of(options.broker, seed, options.seconds), folder)
    if not result.violations and not options.keep:
        shutil.rmtree(folder)
    return result


if __name__ == "__main__":
    sys.exit(main())
