"""The flags all load scripts have. Imports argparse and attrs."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from attrs import asdict, frozen

from _bench.measurement import Load
from _bench.processes import Failure

__all__ = ["Options", "chosen", "flags", "numbers", "options_of", "run_script"]


@frozen
class Options:
    """How much is measured, and with what."""

    loads: tuple[Load, ...]
    seconds: float
    rounds: int
    warm_up: int
    max_calls: int
    size: int
    varying: bool
    client: str
    only: tuple[str, ...]
    json: Path | None

    def to_json(self) -> dict[str, Any]:
        """For the record; where it is written is no part of it."""
        value = asdict(self, filter=lambda attribute, _: attribute.name not in ("json", "loads"))
        return value | {"loads": [load.to_json() for load in self.loads]}


def flags(description: str | None, *, rate: str, in_flight: str = "1,16,64") -> argparse.ArgumentParser:
    """A parser with the shared flags; scripts add their own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--in-flight",
        type=numbers,
        default=numbers(in_flight),
        metavar="N,N",
        help=f"closed loop: calls in flight (default {in_flight}; empty for none)",
    )
    add(
        "--rate",
        type=numbers,
        default=numbers(rate),
        metavar="R,R",
        help=f"open loop: calls a second, latency counted from the intended time (default {rate})",
    )
    add("--seconds", type=float, default=1.5, help="of one measurement (default 1.5)")
    add("--rounds", type=int, default=5, help="how often everything is measured, in turn (default 5)")
    add("--warm-up", type=int, default=500, metavar="N", help="calls before each measurement (default 500)")
    add("--max-calls", type=int, default=50_000, metavar="N", help="at most so many calls in one measurement")
    add("--size", type=int, default=1024, metavar="BYTES", help="of the payload (default 1024)")
    add(
        "--headers",
        choices=("varying", "same"),
        default="varying",
        help="a new trace context, deadline and id in each call (default), or the same in all",
    )
    add(
        "--client",
        choices=("meshnode", "grpcio"),
        default="meshnode",
        help="what makes the load: meshnode's channel in raw frames (default), or grpcio",
    )
    add("--only", default="", metavar="NAME,NAME", help="measure only these rows")
    add("--json", type=Path, metavar="FILE", help="write all figures there, round by round")
    return parser  # fmt: skip


def options_of(parsed: argparse.Namespace) -> Options:
    """From what was parsed."""
    if any(count > 100 for count in parsed.in_flight):
        sys.exit("--in-flight: at most 100, which is what every server allows on one connection")
    closed = [Load(in_flight=int(count)) for count in parsed.in_flight]
    opened = [Load(rate=rate) for rate in parsed.rate]
    return Options(
        loads=(*closed, *opened), seconds=parsed.seconds, rounds=parsed.rounds, warm_up=parsed.warm_up,
        max_calls=parsed.max_calls, size=parsed.size, varying=parsed.headers == "varying",
        client=parsed.client, only=tuple(filter(None, parsed.only.split(","))), json=parsed.json,
    )  # fmt: skip


def numbers(text: str) -> tuple[float, ...]:
    """`1,16,64`; each above zero."""
    found = tuple(float(part) for part in text.split(",") if part.strip())
    if any(number <= 0 for number in found):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers above zero, separated by commas")
    return found


def chosen(options: Options, names: Sequence[str]) -> list[str]:
    """Those of the rows that `--only` leaves. Raises SystemExit for a name that is not there."""
    unknown = [name for name in options.only if name not in names]
    if unknown:
        sys.exit(f"--only: there is no {unknown[0]!r}; there are {', '.join(names)}")
    return [name for name in names if not options.only or name in options.only]


def run_script(main: Callable[[], None]) -> None:
    """Run a script; signals end it in order, so that what it has started ends with it."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
