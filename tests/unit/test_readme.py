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
