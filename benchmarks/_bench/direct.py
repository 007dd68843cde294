"""Rows for the same call without a node. Imports this package."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from _bench.nodes import running_app
from _bench.processes import Program
from _bench.requests import Request
from _bench.rounds import Subject

__all__ = ["BASELINES", "direct_subjects"]

BASELINES: Final = ("grpclib", "grpcio")


def direct_subjects(
    stack: ExitStack,
    rows: list[str],
    request: Request,
    app: Program,
    address: str,
    size: int,
    prefix: str = "",
) -> list[Subject]:
    """`direct`, and of the baselines those that are among the rows: they are started here."""
    subjects = []
    if f"{prefix}direct" in rows:
        subjects.append(Subject(f"{prefix}direct", address, request, {"app": app.pid}, ("app",)))
    for kind in BASELINES:
        if f"{prefix}{kind}" in rows:
            other, where = stack.enter_context(running_app(kind, size))
            subjects.append(Subject(f"{prefix}{kind}", where, request, {"app": other.pid}, ("app",)))
    return subjects
