"""Everything that can be killed or cut in one run, by name, and playing a schedule of faults on it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import trio
from support.processes import surroundings_of
from support.redis_servers import find_redis_server, free_port

from histories.daemons import Daemon
from histories.faults import Fault, Kind, link
from histories.links import Link
from histories.records import read_records

__all__ = ["Stage", "until"]

_TESTS = Path(__file__).resolve().parent.parent
_PATIENCE = 60.0
"""Seconds for what must come about in the end, however busy the machine."""
_LOOK = 0.1


async def until(condition: Callable[[], bool], *, patience: float = _PATIENCE) -> bool:
    """What other processes write raises no event here: look again and again, but not for ever."""
    with trio.move_on_after(patience):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(_LOOK)
        return True
    return False


def change(file: Path) -> None:
    """Another interval, at once as a whole: that makes it another component."""
    text = re.sub(
        r"(redeliverInterval, value: ')(\d+)ms",
        lambda found: f"{found[1]}{int(found[2]) + 1}ms",
        file.read_text(),
    )
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


@final
class Stage:
    """Set it first, then open it with `running`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.records.mkdir()
        self.daemons: dict[str, Daemon] = {}
        self.links: dict[str, Link] = {}
        self.applied: Counter[str] = Counter()
        self._seed = seed
        self._files: dict[str, Path] = {}

    def port(self) -> int:
        """Below the range from which the system takes ports for outgoing connections: it must stay ours
        while its owner is dead.
        """
        return free_port(below=32000)

    def link(self, one: str, other: str, target: int) -> int:
        """A way that can be cut; its near port."""
        made = self.links[link(one, other)] = Link(self.port(), target)
        return made.port

    def daemon(self, name: str, *command: str, **options: Any) -> Daemon:
        made = self.daemons[name] = Daemon(name, command, self.folder / f"{name}.log", **options)
        return made

    def application(self, name: str, module: str, **settings: Any) -> Daemon:
        settings |= {"name": name, "records": str(self.records), "seed": self._seed}
        command = [sys.executable, "-m", f"histories.{module}", json.dumps(settings)]
        env = {"PYTHONPATH": str(_TESTS)}
        return self.daemon(name, *command, env=env, may_end=module != "subscriber")

    def node(self, name: str, app_id: str, port: int, resources: str, app_port: int | None = None) -> None:
        home = self.folder / name
        (home / "resources").mkdir(parents=True)
        file = self._files[name] = home / "resources" / "resources.yaml"
        file.write_text(resources)
        command = [sys.executable, "-m", "meshnode", "node", "--app-id", app_id]
        command += ["--dapr-grpc-port", str(port), "--resources-path", str(home / "resources")]
        if app_port is not None:
            command += ["--app-port", str(app_port)]
        self.daemon(name, *command, env=surroundings_of(home))

    def redis(self, name: str, port: int) -> None:
        """One that keeps what it has acknowledged."""
        program = find_redis_server()
        assert program is not None, "redis-server is not installed"
        folder = self.folder / name
        folder.mkdir()
        keep = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.daemon(name, program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *keep)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything that has been set begins; nothing is left behind, also of what came later."""
        async with trio.open_nursery() as nursery:
            for one in self.links.values():
                await nursery.start(one.run)
            try:
                for daemon in self.daemons.values():
                    await daemon.start()
                yield
            finally:
                for daemon in self.daemons.values():
                    await daemon.kill()
                nursery.cancel_scope.cancel()

    async def play(self, faults: Sequence[Fault]) -> None:
        """Afterwards everything runs and carries again."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for target in {fault.target for fault in faults}:
                mine = [fault for fault in faults if fault.target == target]
                nursery.start_soon(self._play, mine, began)

    async def _play(self, faults: Sequence[Fault], began: float) -> None:
        """One target's faults, one after another."""
        for fault in faults:
            await trio.sleep_until(began + fault.at)
            self.applied[fault.kind.value] += 1
            if fault.target in self.links:
                self.links[fault.target].cut(fault.kind)
                await trio.sleep(fault.seconds)
                self.links[fault.target].heal()
            else:
                await self._hurt(self.daemons[fault.target], fault)

    async def _hurt(self, daemon: Daemon, fault: Fault) -> None:
        if fault.kind is Kind.CHANGE:
            change(self._files[fault.target])
            await trio.sleep(fault.seconds)
            return
        if fault.kind is Kind.PAUSE:
            daemon.pause()
            await trio.sleep(fault.seconds)
            daemon.resume()
            return
        await (daemon.kill() if fault.kind is Kind.KILL else daemon.stop())
        await trio.sleep(fault.seconds)
        await daemon.start()

    def count(self, what: str) -> int:
        """How many records say so."""
        return sum(bool(one["what"] == what) for one in read_records(self.records))

    def falls(self) -> list[str]:
        """Whoever ended without being asked to, or ended badly."""
        for daemon in self.daemons.values():
            daemon.notice()
        return [fall for daemon in self.daemons.values() for fall in daemon.falls]
