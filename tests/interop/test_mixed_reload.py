"""The same changes to the same resource files under both sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from attrs import frozen
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2, state_pb2
from support.daprd_servers import daprd
from support.install_daprd import find_daprd
from support.processes import Process, node, wait_until

pytestmark = pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed")
MEMORY = "state.in-memory"
SQLITE = "state.sqlite"


@frozen
class Sidecar:
    stub: Any
    folder: Path
    """Of its resources."""
    process: Process

    def components(self) -> dict[str, str]:
        answer = self.stub.GetMetadata(metadata_pb2.GetMetadataRequest(), timeout=20)
        return {one.name: one.type for one in answer.registered_components}

    def write(self, name: str, *texts: str) -> None:
        (self.folder / name).write_text("\n---\n".join(texts))

    def save(self, value: bytes) -> None:
        item = common_pb2.StateItem(key="k", value=value)
        self.stub.SaveState(state_pb2.SaveStateRequest(store_name="store", states=[item]), timeout=20)

    def get(self) -> bytes | None:
        """None where the store is not there at the moment."""
        try:
            found = self.stub.GetState(state_pb2.GetStateRequest(store_name="store", key="k"), timeout=20)
        except grpc.RpcError:
            return None
        return bytes(found.data)


def component(name: str, kind: str, *scopes: str, **metadata: str) -> str:
    items = [{"name": key, "value": value} for key, value in metadata.items()]
    spec = {"type": kind, "version": "v1", "metadata": items}
    made = {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "spec": spec}
    return json.dumps({**made, "scopes": list(scopes)} if scopes else made)


@pytest.fixture
def sidecars(tmp_path: Path) -> Iterator[tuple[Sidecar, Sidecar]]:
    """A daprd and a node, each with a store in memory, and with folders of their own."""
    text = component("store", MEMORY)
    with ExitStack() as stack:
        found = []
        for folder, start in (("daprd-a", daprd), ("resources-a", node)):
            running: Any = stack.enter_context(start("a", tmp_path, resources=text))  # type: ignore[operator]
            channel = stack.enter_context(grpc.insecure_channel(running.address))
            stub = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
            found.append(Sidecar(stub, tmp_path / folder, running.process))
        yield found[0], found[1]


def test_what_files_say_is_what_both_go_by(sidecars: tuple[Sidecar, Sidecar], tmp_path: Path) -> None:
    def change(name: str, *texts: str, then: dict[str, str]) -> None:
        for one in sidecars:
            one.write(name, *texts)
        for one in sidecars:
            wait_until(lambda by=one: by.components() == then, what=f"{then} in {one.folder.name}")  # type: ignore[misc]

    def value(expected: bytes | None) -> None:
        for one in sidecars:
            wait_until(lambda by=one: by.get() == expected, what=f"{expected!r} in {one.folder.name}")  # type: ignore[misc]

    for one in sidecars:
        one.save(b"in memory")
    other = component("other", MEMORY)
    change("more.yaml", other, then={"store": MEMORY, "other": MEMORY})
    value(b"in memory")  # what did not change stays as it is
    change("more.yaml", component("other", MEMORY, "somebody"), then={"store": MEMORY})
    change("more.yaml", component("other", MEMORY, "a"), then={"store": MEMORY, "other": MEMORY})
    change(
        "more.yaml",
        other,
        component("third", MEMORY),
        then=dict.fromkeys(("store", "other", "third"), MEMORY),
    )
    for one in sidecars:
        (one.folder / "more.yaml").rename(one.folder / "renamed.yaml")
        (one.folder / "last.yaml").write_text(component("last", MEMORY))
        wait_until(lambda by=one: "last" in by.components(), what="the last one")  # type: ignore[misc]
    value(b"in memory")
    for one in sidecars:
        for name in ("renamed.yaml", "last.yaml"):
            (one.folder / name).unlink()
        wait_until(lambda by=one: by.components() == {"store": MEMORY}, what="the files being gone")  # type: ignore[misc]
        # Another type, and then other metadata: the store is another one each time.
        one.write("resources.yaml", component("store", SQLITE, connectionString=str(tmp_path / "1.db")))
        wait_until(lambda by=one: by.components() == {"store": SQLITE}, what="SQLite")  # type: ignore[misc]
        wait_until(lambda by=one: by.get() == b"", what="the new store")  # type: ignore[misc]
        one.save(b"in the first")
        one.write("resources.yaml", component("store", SQLITE, connectionString=str(tmp_path / "2.db")))
        wait_until(lambda by=one: by.get() == b"", what="the second file")  # type: ignore[misc]
        one.write("resources.yaml", component("store", SQLITE, connectionString=str(tmp_path / "1.db")))
        wait_until(lambda by=one: by.get() == b"in the first", what="the first file")  # type: ignore[misc]
        one.stub.DeleteState(state_pb2.DeleteStateRequest(store_name="store", key="k"), timeout=20)


MISTAKES = {
    "a type that is none": component("store", "state.nothing"),
    "a field that is missing": component("store", SQLITE, connectionString=""),
    "no place to write to": component("store", SQLITE, connectionString="/nowhere/at/all.db"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_component_that_cannot_be_made(sidecars: tuple[Sidecar, Sidecar], mistake: str) -> None:
    """It ends a daprd; a node goes on with what it had, says why, and takes the next change."""
    theirs, ours = sidecars
    for one in sidecars:
        one.save(b"kept")
        one.write("resources.yaml", MISTAKES[mistake])
    theirs.process.popen.wait(30)
    assert theirs.process.popen.returncode != 0
    ours.process.wait_for("level=error")
    assert (ours.get(), ours.components()) == (b"kept", {"store": MEMORY})
    ours.write("resources.yaml", component("store", MEMORY), component("other", MEMORY))
    wait_until(lambda: "other" in ours.components(), what="the next change")
    assert ours.get() == b"kept"
    assert ours.process.popen.poll() is None


def test_a_file_that_is_no_yaml(sidecars: tuple[Sidecar, Sidecar]) -> None:
    theirs, ours = sidecars
    for one in sidecars:
        one.save(b"kept")
        one.write("more.yaml", "a: [")
    ours.process.wait_for("the resources are not reloaded")
    for one in sidecars:
        one.write("other.yaml", component("other", MEMORY))
    wait_until(lambda: "other" in theirs.components(), what="daprd going on")
    assert "other" not in ours.components()  # with a mistake anywhere nothing changes
    ours.write("more.yaml", component("more", MEMORY))
    wait_until(lambda: {"other", "more"} <= set(ours.components()), what="both files")
    for one in sidecars:
        assert one.get() == b"kept"
