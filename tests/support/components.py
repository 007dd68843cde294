"""Pluggable components: processes that serve one on a socket, and its drivers as a node finds them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from support.processes import Process, process, wait_until

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Driver, DriverContext
from meshnode.registry import Registry, load_options
from meshnode.sockets import discover_registry

__all__ = [
    "driver_at",
    "go_component",
    "open_component",
    "options_of",
    "python_component",
    "registry_at",
    "socket_folder",
    "until_back",
]

T = TypeVar("T")


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Short, as a Unix socket's path has to be."""
    with tempfile.TemporaryDirectory(prefix="mn-", dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def go_component(folder: Path) -> Iterator[Process]:
    """`gomem.sock` and `gosecrets.sock`, served by Dapr's own SDK."""
    if shutil.which("go-component") is None:
        pytest.skip("go-component is not built (make tools)")
    names = ("gomem.sock", "gosecrets.sock")
    for name in names:
        (folder / name).unlink(missing_ok=True)  # of a process that was killed
    with process(["go-component"], env={"DAPR_COMPONENT_SOCKETS_FOLDER": str(folder)}) as running:
        wait_until(lambda: all((folder / name).is_socket() for name in names))
        yield running


@contextmanager
def python_component(folder: Path, name: str, *drivers: str) -> Iterator[Process]:
    """These drivers (`module:attribute`), served by `meshnode.pluggable` in a process of its own."""
    script = Path(__file__).with_name("serve_component.py")
    with process([sys.executable, str(script), str(folder), name, *drivers]) as running:
        running.wait_for("serving ")
        yield running


async def registry_at(folder: Path) -> Registry:
    return await discover_registry({"DAPR_COMPONENTS_SOCKETS_FOLDER": str(folder)})


async def driver_at(folder: Path, name: str) -> Driver[Any]:
    """The driver of that type, from the sockets in the folder."""
    return (await registry_at(folder)).driver(name)


def options_of(driver: Driver[Any], metadata: Mapping[str, str]) -> Any:
    return load_options(driver.metadata, metadata)


@asynccontextmanager
async def open_component(
    folder: Path, type_: str, component: str = "c", **metadata: str
) -> AsyncIterator[Any]:
    """A component of that type, opened as a node does it."""
    driver = await driver_at(folder, type_)
    async with driver.open(options_of(driver, metadata), DriverContext(component, "app")) as instance:
        yield instance


async def until_back(call: Callable[[], Awaitable[T]]) -> T:
    """What the call answers once its component is there again."""
    with trio.fail_after(30):
        while True:
            try:
                return await call()
            except ComponentUnavailable:
                await trio.sleep(0.02)
