"""Peers of the wire tests: one process for each program, for the whole run; certificates for TLS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import trustme
from wire_certificates import Certificates
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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    folder = tmp_path_factory.mktemp("certificates")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    key = issued.private_key_pem.bytes()
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    return Certificates(
        authority.cert_pem.bytes(), chain, key, str(folder / "chain.pem"), str(folder / "key.pem")
    )
