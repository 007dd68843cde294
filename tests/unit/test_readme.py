"""The README's examples run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from meshnode.testing.mesh import Mesh

README = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text(encoding="utf-8")


def example(containing: str) -> str:
    """The Python example with this in it."""
    return next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in block
    )


async def test_the_mesh_example(mesh: Mesh, autojump_clock: MockClock) -> None:
    names: dict[str, Any] = {"pytest": pytest, "trio": trio}
    exec(compile(example("async def test_orders"), "README.md", "exec"), names)
    await names["test_orders_survive_a_cut_link"](mesh, autojump_clock)


async def test_the_driver_example(mesh: Mesh) -> None:
    from meshnode.registry import Registry, describe, load_options

    names: dict[str, Any] = {"MyStore": lambda options: options}
    exec(compile(example("driver = Driver("), "README.md", "exec"), names)
    driver = names["driver"]
    assert Registry((), [driver]).driver("state.mine") is driver
    assert [row.name for row in describe(driver)] == ["file", "sync"]
    options = load_options(driver.metadata, [("file", "x"), ("sync", "true")])
    async with driver.open(options, None) as store:
        assert (store.file, store.sync) == ("x", True)


def test_the_conformance_example_names_what_is_there() -> None:
    from meshnode.testing.conformance.state import CHECKS

    assert "await check.run(open_my_store)" in example("CHECKS")
    assert all(callable(check.run) and str(check) for check in CHECKS)
