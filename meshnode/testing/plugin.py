"""The pytest plugin: a `mesh` fixture for pytest-trio tests. Imports nothing heavy until a test asks for it.

`mesh_seed` may be overridden, or parametrised, to play one test with many histories. Use `autojump_clock`
beside `mesh` for virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from meshnode.testing.mesh import Mesh

__all__ = ["mesh", "mesh_seed"]


@pytest.fixture
def mesh_seed() -> int:
    """The seed of the `mesh` fixture."""
    return 0


@pytest.fixture
async def mesh(mesh_seed: int) -> AsyncIterator[Mesh]:
    """An in-process mesh that ends with the test."""
    from meshnode.testing.mesh import open_mesh

    async with open_mesh(mesh_seed) as opened:
        yield opened
