"""Rows for what is already running somewhere: `--against HOST:PORT`. Imports argparse and this package."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress

from _bench.processes import Failure
from _bench.requests import Request
from _bench.rounds import Subject

__all__ = ["AGAINST", "add_flags", "against"]

AGAINST = "against"


def add_flags(parser: argparse.ArgumentParser, also: str = "") -> None:
    """`--against` and what belongs to it."""
    parser.add_argument(
        "--against",
        metavar="HOST:PORT" if not also else f"{also}|HOST:PORT",
        help="the same load on another sidecar that speaks Dapr's contract; behind it runs `app.py`"
        + (f"; {also}: two of them in a row, started here" if also else ""),
    )
    parser.add_argument("--app-id", default="echo", help="with --against: the application's id there (echo)")
    parser.add_argument(
        "--pid", action="append", default=[], type=_role, metavar="ROLE=PID",
        help="with --against: a process on this machine whose CPU time is counted; may be repeated",
    )  # fmt: skip


def _role(text: str) -> tuple[str, int]:
    role, _, number = text.partition("=")
    with suppress(ValueError, ProcessLookupError, PermissionError):
        os.kill(int(number), 0)
        return role, int(number)
    raise argparse.ArgumentTypeError(f"{text!r}: ROLE=PID of a running process")


def against(parsed: argparse.Namespace, name: str, request: Request) -> Subject:
    """The row of `--against HOST:PORT`."""
    if ":" not in parsed.against:
        raise Failure(f"--against: {parsed.against!r} is no HOST:PORT")
    pids = dict(parsed.pid)
    return Subject(name, parsed.against, request, pids, tuple(pids))
