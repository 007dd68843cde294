"""`meshnode stubs`: what it generates imports, and its trio flavour carries all four kinds of calls."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from meshnode.cli import stubs
from meshnode.cli._app import main
from meshnode.transport import GRPCError, Server, Status, open_channel

PROTO = """
syntax = "proto3";
package shapes.v1;
import "google/protobuf/empty.proto";
import "common.proto";

service Shapes {
  // One to one.
  rpc Double(shapes.Number) returns (shapes.Number);
  rpc CountTo(shapes.Number) returns (stream shapes.Number);
  rpc Sum(stream shapes.Number) returns (shapes.Number);
  rpc Echo(stream shapes.Number) returns (stream shapes.Number);
  rpc Nothing(google.protobuf.Empty) returns (google.protobuf.Empty);
}
"""
COMMON = """
syntax = "proto3";
package shapes;
message Number { int32 value = 1; }
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shapes.proto").write_text(PROTO)
    (tmp_path / "common.proto").write_text(COMMON)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["trio", "asyncio"])
def generated(
    request: pytest.FixtureRequest, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    name = f"generated_{request.param}"
    assert main(["stubs", "shapes.proto", "--out", name, "--flavour", request.param]) == 0
    monkeypatch.syspath_prepend(str(sources))
    yield (
        request.param,
        importlib.import_module(f"{name}.shapes.v1"),
        importlib.import_module(f"{name}.shapes"),
    )
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def shapes(module: ModuleType, number: Any) -> Any:
    class Shapes(module.ShapesBase):  # type: ignore[misc,name-defined]
        async def double(self, message: Any) -> Any:
            return number(value=2 * message.value)

        async def count_to(self, message: Any) -> AsyncIterator[Any]:
            for value in range(message.value):
                yield number(value=value)

        async def sum(self, messages: AsyncIterator[Any]) -> Any:
            return number(value=sum([message.value async for message in messages]))

        async def echo(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for message in messages:
                yield message

    return Shapes()


async def test_what_is_generated_works_on_trio(generated: Any) -> None:
    flavour, module, common = generated
    if flavour != "trio":
        assert {"double", "count_to", "sum", "echo", "nothing"} <= set(dir(module.ShapesStub))
        return
    number = common.Number
    server = Server([shapes(module, number)])
    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            near, far = memory_stream_pair()
            nursery.start_soon(server.serve_connection, far)
            return near

        async with open_channel(dial) as channel:
            stub = module.ShapesStub(channel)
            assert (await stub.double(number(value=4))).value == 8
            async with stub.count_to(number(value=3)) as answers:
                assert [answer.value async for answer in answers] == [0, 1, 2]
            async with stub.count_to(number(value=3)) as answers:
                assert (await anext(answers)).value == 0  # and leave
            assert (await stub.sum([number(value=1), number(value=2)])).value == 3
            async with stub.echo([number(value=1), number(value=2)]) as answers:
                assert [answer.value async for answer in answers] == [1, 2]
            with pytest.raises(GRPCError) as caught:
                await stub.nothing()
            assert caught.value.status is Status.UNIMPLEMENTED
        nursery.cancel_scope.cancel()


def test_comments_become_docstrings(generated: Any) -> None:
    assert generated[1].ShapesStub.double.__doc__.strip() == "One to one."


def test_a_file_protoc_refuses(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sources / "shapes.proto").write_text("syntax = nonsense;")
    assert main(["stubs", "shapes.proto"]) == 1
    assert "shapes.proto:1" in capsys.readouterr().err
    assert not (sources / "stubs").exists()


def test_a_missing_compiler_is_named_with_its_command(
    sources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stubs, "find_spec", lambda name: None)
    assert main(["stubs", "shapes.proto"]) == 1
    err = capsys.readouterr().err
    assert "-m pip install 'betterproto2-compiler" in err
    assert "'grpcio-tools" in err
