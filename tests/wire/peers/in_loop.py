"""Peers on asyncio: the loop runs in a thread all the time, so it also does what no command asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from jsonlines import serve


def serve_in_loop(
    handle: Callable[[dict[str, Any]], Awaitable[Any]], close: Callable[[], Awaitable[None]]
) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def answer(command: dict[str, Any]) -> Any:
        return await handle(command)

    async def end() -> None:
        await close()

    serve(lambda command: asyncio.run_coroutine_threadsafe(answer(command), loop).result())
    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
