"""A process that serves drivers with `meshnode.pluggable`: the folder, the component's name, and the drivers
as `module:attribute`. SIGTERM stops it.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from meshnode.pluggable import serve


async def main(folder: str, name: str, *places: str) -> None:
    drivers = [driver_of(place) for place in places]
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_then_end, nursery.cancel_scope, drivers, name, folder, stop)
            async for _ in signals:
                stop.set()


async def serve_then_end(
    scope: trio.CancelScope, drivers: list[Any], name: str, folder: str, stop: trio.Event
) -> None:
    await serve(*drivers, name=name, folder=folder, stop=stop)
    print("served to the end", flush=True)
    scope.cancel()


def driver_of(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for drivers of `support`
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    trio.run(partial(main, *sys.argv[1:]))
