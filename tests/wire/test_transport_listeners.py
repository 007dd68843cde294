"""Addresses: where a server can listen and a channel connect, and what is said of those that are wrong."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from wire_service import Echo, Raw, serving

from meshnode.transport import Cardinality, Channel, ConnectionLost, Server, open_channel, open_listeners
from meshnode.transport.listeners import connect, parse_address


async def echo(channel: Channel, message: bytes) -> bytes:
    async with channel.request("/wire.Test/Echo", Cardinality.UNARY_UNARY, Raw, Raw) as stream:
        await stream.send_message(Raw(message), end=True)
        reply = await stream.recv_message()
        assert reply is not None
        return bytes(reply)


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        (":50001", ("", 50001)),
        ("node.example:65535", ("node.example", 65535)),
        ("unix:/run/node.sock", "/run/node.sock"),
        ("unix:///run/node.sock", "/run/node.sock"),
        ("unix:relative.sock", "relative.sock"),
    ],
)
def test_addresses(address: str, parsed: object) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "localhost:http", "localhost:65536", "unix:"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError):
        parse_address(address)


async def test_a_port_of_the_systems_choice_is_told() -> None:
    async with serving(Echo(), address="127.0.0.1:0") as (target, _), open_channel(target) as channel:
        assert not target.endswith(":0")
        assert await echo(channel, b"tcp") == b"tcp"


async def test_all_addresses_of_a_name_share_the_port() -> None:
    listeners = await open_listeners("localhost:0")
    try:
        assert len({listener.port for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


async def test_a_port_that_is_taken_is_an_error_and_nothing_stays_open() -> None:
    first = await open_listeners("127.0.0.1:0")
    with pytest.raises(OSError) as error:
        await open_listeners(f"127.0.0.1:{first[0].port}")
    assert error.value.errno == errno.EADDRINUSE
    for listener in first:
        listener.close()


async def test_processes_can_share_a_port() -> None:
    first = await open_listeners("127.0.0.1:0", reuse_port=True)
    second = await open_listeners(f"127.0.0.1:{first[0].port}", reuse_port=True)
    assert first[0].address == second[0].address
    for listener in [*first, *second]:
        listener.close()


async def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    async with serving(Echo(), address=f"unix:{path}") as (target, _), open_channel(target) as channel:
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert await echo(channel, b"unix" * 100_000) == b"unix" * 100_000
    assert not path.exists()


async def test_a_socket_that_a_dead_server_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with serving(Echo(), address=f"unix:{path}") as (target, _), open_channel(target) as channel:
        assert await echo(channel, b"alive") == b"alive"


async def test_neither_a_living_socket_nor_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    async with serving(Echo(), address=f"unix:{path}") as (target, _), open_channel(target) as channel:
        with pytest.raises(OSError):
            await open_listeners(f"unix:{path}")
        assert await echo(channel, b"still here") == b"still here"
    path.write_text("precious")
    with pytest.raises(OSError):
        await open_listeners(f"unix:{path}")
    assert path.read_text() == "precious"


async def test_a_server_closes_its_listeners(tmp_path: Path) -> None:
    server = Server([Echo()])
    listeners = await open_listeners("127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        await server.drain()
    with pytest.raises(OSError):
        await connect(listeners[0].address)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "no-such-host.invalid:80", "unix:/no/such/socket"])
async def test_nobody_there(target: str) -> None:
    async with open_channel(target) as channel:
        with pytest.raises(ConnectionLost, match="cannot connect to") as error:
            await echo(channel, b"")
    assert not error.value.sent
