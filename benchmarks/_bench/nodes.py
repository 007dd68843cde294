"""meshnode nodes as a user starts them, in folders of their own. Imports this package's processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from _bench.processes import Program, python, running

__all__ = ["WRAPPED", "Node", "component", "running_app", "running_chain", "running_node"]

_STARTING = 60.0  # seconds; a busy machine is slow
WRAPPED = 600.0  # seconds for a program under valgrind


@frozen
class Node:
    """A node that has started; `address` is its API's."""

    program: Program
    address: str
    ready_seconds: float
    """From the start of the process to its report."""


@contextmanager
def running_node(
    role: str,
    folder: Path,
    app_id: str,
    *,
    app: str | None = None,
    components: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Node]:
    """A node, ready. `folder` holds the state of all nodes that are to find one another; `components` are
    YAML documents by file name. `wrapper` is a command that runs the node's.
    """
    command = [*wrapper, sys.executable, "-m", "meshnode", "node", "--app-id", app_id]
    command += ["--dapr-grpc-port", "0", "--dapr-listen-addresses", "127.0.0.1", "--log-level", "warn"]
    if app is not None:
        command += ["--app-port", app.rpartition(":")[2]]
    if components:
        resources = folder / role
        resources.mkdir()
        for name, text in components.items():
            (resources / f"{name}.yaml").write_text(text, encoding="utf-8")
        command += ["--resources-path", str(resources)]
    begun = time.perf_counter()
    env, patience = _surroundings(folder), WRAPPED if wrapper else _STARTING
    with running(role, command, env=env, ready_flag="--ready-fd", grace=patience) as program:
        address = program.line(patience)["grpc"][0]
        seconds = time.perf_counter() - begun
        if app is not None:
            program.line(patience)  # the application has answered, too
        yield Node(program, address, seconds)


def _surroundings(folder: Path) -> dict[str, str]:
    """Nothing of the user's own is read or written."""
    env = {}
    for name in ("STATE", "CONFIG", "DATA", "CACHE", "RUNTIME"):
        path = folder / name.lower()
        path.mkdir(mode=0o700, exist_ok=True)
        env["XDG_RUNTIME_DIR" if name == "RUNTIME" else f"XDG_{name}_HOME"] = str(path)
    return env


def component(name: str, type_: str, **metadata: str) -> str:
    """A Component resource."""
    lines = [f"    - name: {key}\n      value: {value!r}" for key, value in metadata.items()]
    text = "\n".join(lines) or "    []"
    return (
        "apiVersion: dapr.io/v1alpha1\nkind: Component\n"
        f"metadata:\n  name: {name}\nspec:\n  type: {type_}\n  version: v1\n  metadata:\n{text}\n"
    )


@contextmanager
def running_app(kind: str, size: int, *, wrapper: Sequence[str] = ()) -> Iterator[tuple[Program, str]]:
    """The benchmark's application on one of the libraries, and its address."""
    command = [*wrapper, *python("_bench.echo", kind, "--size", str(size))]
    with running("app", command, grace=WRAPPED) as program:
        yield program, str(program.line(WRAPPED if wrapper else _STARTING)["address"])


@contextmanager
def running_chain(folder: Path, app: str) -> Iterator[tuple[Node, Node]]:
    """Two nodes: the caller's, and the one before the application `echo`."""
    with ExitStack() as stack:
        behind = stack.enter_context(running_node("node B", folder, "echo", app=app))
        front = stack.enter_context(running_node("node A", folder, "caller"))
        yield front, behind
