"""Peers of the wire tests: one process for each program, for the whole run; certificates for TLS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from wire_peers import Peer


@pytest.fixture(scope="session")
def peer() -> Iterator[Callable[[str], Peer]]:
    """Gives the peer process of a program in `peers/`, started when first asked for."""
    started: dict[str, Peer] = {}

    def get(program: str) -> Peer:
        if program not in started:
            started[program] = Peer(program)
        return started[program]

    yield get
    with contextlib.ExitStack() as stack:
        for running in started.values():
            stack.callback(running.close)
