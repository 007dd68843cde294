"""The node's asyncio loop: a library's task that fails, with nobody asking for it, does not end the node."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
import trio
import trio.lowlevel
import trio_asyncio

from meshnode.asyncioloop import asyncio_loop


async def test_what_nobody_asks_for_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("of a library's own")

    async def begin() -> None:
        task = asyncio.get_running_loop().create_task(fail())
        await asyncio.wait([task])
        del task

    with caplog.at_level(logging.WARNING, "meshnode.asyncio"):
        async with asyncio_loop(True):
            await trio_asyncio.aio_as_trio(begin)()  # type: ignore[attr-defined]
            gc.collect()
            await trio.lowlevel.checkpoint()
            await trio_asyncio.aio_as_trio(asyncio.sleep)(0)  # type: ignore[attr-defined]
    assert "of a library's own" in caplog.text
