"""The node of a process: its logs, its signals, its resources read from files.

SIGTERM and SIGINT begin the graceful shutdown; while the node is still starting they end it at once, and a
second one ends the waiting for requests in flight. SIGHUP has the resources read again, unless it is ignored
as under nohup. May import everything below the command line.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import trio

from meshnode.config import Resources
from meshnode.config.nodeoptions import NodeOptions, NodeStarted
from meshnode.defaults import own_variables
from meshnode.errors import ConfigError
from meshnode.node import Node, Surroundings, open_node
from meshnode.planning import mistakes
from meshnode.registry import Registry
from meshnode.sockets import discover_registry
from meshnode.telemetry.logs import LogTail, add_stream, configure_logging
from meshnode.watching import Watcher

__all__ = ["run_node"]

_log = logging.getLogger("meshnode.node")


async def run_node(
    options: NodeOptions,
    *,
    on_app_ready: Callable[[], None] = lambda: None,
    leave: trio.Event | None = None,
    on_quiet: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[NodeStarted] = trio.TASK_STATUS_IGNORED,
) -> int:
    """Returns the exit code once the node has shut down. Raises what `open_node` raises.

    Once `leave` is set the node takes no more events, as at the beginning of a shutdown, and goes on serving;
    `on_quiet` is called when those under way have ended.
    """
    tail = LogTail()
    with _logs(options, tail), trio.open_signal_receiver(*_signals(options)) as signals:
        around = Surroundings(tail=tail)
        async with trio.open_nursery() as nursery:
            ends = _Ends(nursery.cancel_scope)
            nursery.start_soon(ends.watch, signals)
            registry = await discover_registry(options.env)
            load = partial(_load, options, registry, around)
            watcher = Watcher((*options.resources_paths, *options.config_paths), load)
            resources = load()
            async with open_node(
                options, resources, registry=registry, surroundings=around, on_app_ready=on_app_ready
            ) as node:
                ends.node = node
                if node.hot_reload and options.resources_paths:
                    ends.watcher = watcher
                    nursery.start_soon(watcher.run, partial(_reload, node))
                if leave is not None:
                    nursery.start_soon(_leave, node, leave, on_quiet)
                task_status.started(node.started)
                await node.stopping.wait()
                await node.shut_down()
            nursery.cancel_scope.cancel()
    return 0


async def _reload(node: Node, resources: Resources) -> None:
    """Pluggable components may have come meanwhile."""
    await node.reload(resources, await discover_registry(node.options.env))


async def _leave(node: Node, leave: trio.Event, on_quiet: Callable[[], None]) -> None:
    await leave.wait()
    await node.leave()
    on_quiet()


@final
class _Ends:
    """What a signal means, at each point of a node's life."""

    def __init__(self, everything: trio.CancelScope) -> None:
        self.node: Node | None = None
        self.watcher: Watcher | None = None
        self._everything = everything

    async def watch(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name, node = signal.Signals(number).name, self.node
            if number == signal.SIGHUP:
                _log.info("Received %s", name)
                if self.watcher is not None:
                    self.watcher.ask()
            elif node is None:
                _log.info("Received %s while starting: not going on", name)
                self._everything.cancel()
            elif node.stopping.is_set():
                _log.warning("Received %s again: not waiting for requests in flight", name)
                node.hurry()
            else:
                _log.info("Received %s", name)
                node.stop()


def _signals(options: NodeOptions) -> tuple[signal.Signals, ...]:
    """SIGHUP ends a node that has no files to read again, as it ends any program."""
    ends = (signal.SIGTERM, signal.SIGINT)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (*ends, signal.SIGHUP) if options.resources_paths and not ignored else ends


def _load(options: NodeOptions, registry: Registry, around: Surroundings) -> Resources:
    """The resources from the files. Raises `ConfigError` with every mistake, in form and in meaning."""
    if not (options.resources_paths or options.config_paths):
        return Resources()
    from meshnode.config import load_resources  # Only here: it brings the reading of YAML, 8 % of a start.

    try:
        env = {**options.env, **own_variables(options)}
        return load_resources(options.resources_paths, options.config_paths, lenient=options.lenient, env=env)
    except ConfigError as error:
        problems = list(error.problems)
        if error.partial is not None:
            problems += mistakes(options, error.partial, around, registry)
        raise ConfigError(problems) from None


@contextmanager
def _logs(options: NodeOptions, tail: LogTail) -> Iterator[None]:
    """This process's logs go to standard output, to the tail, and to `log_file` as well."""
    instance = socket.gethostname()
    common: dict[str, Any] = {"as_json": options.log_as_json, "app_id": options.app_id, "instance": instance}
    configure_logging(options.log_level, stream=sys.stdout, **common)
    logging.getLogger("meshnode").addHandler(tail)
    if options.log_file is None:
        yield
        return
    with options.log_file.open("a", encoding="utf-8") as stream:
        add_stream(stream, **common)
        yield
