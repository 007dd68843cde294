"""Where a node's API listens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from meshnode.config.nodeoptions import NodeOptions
from meshnode.surroundings import Surroundings, api_listeners


class _Listener:
    def __init__(self, address: str) -> None:
        self.address = address
        self.closed = False

    def close(self) -> None:
        self.closed = True


class _Network:
    """Port 0 becomes 7001; addresses in `taken` cannot be listened on."""

    def __init__(self, *taken: str) -> None:
        self.taken = taken
        self.opened: list[_Listener] = []

    async def listen(self, address: str) -> Sequence[Any]:
        if address in self.taken:
            raise OSError(f"{address} is taken")
        self.opened.append(_Listener(address.replace(":0", ":7001") if address.endswith(":0") else address))
        return [self.opened[-1]]


async def addresses(network: _Network, **options: Any) -> list[str]:
    around = Surroundings(listen=network.listen)
    return [one.address for one in await api_listeners(NodeOptions(app_id="a", **options), around)]


async def test_loopback_unless_told_otherwise() -> None:
    assert await addresses(_Network(), grpc_port=50001) == ["127.0.0.1:50001"]


async def test_all_addresses_share_the_port_that_the_first_was_given() -> None:
    found = await addresses(_Network(), grpc_port=0, listen_addresses=("127.0.0.1", "::1"))
    assert found == ["127.0.0.1:7001", "[::1]:7001"]


async def test_what_was_opened_is_closed_when_another_address_is_taken() -> None:
    network = _Network("127.0.0.2:50001")
    with pytest.raises(OSError, match="taken"):
        await addresses(network, grpc_port=50001, listen_addresses=("127.0.0.1", "127.0.0.2"))
    assert [one.closed for one in network.opened] == [True]


async def test_a_socket_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = await addresses(_Network(), unix_domain_socket=Path("s"))
    assert found == [f"unix:{tmp_path}/s/dapr-a-grpc.socket"]
