"""Output of children: lines, prefixes, colours, files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from meshnode.cli._color import use_color
from meshnode.cli._lines import KEPT_LOGS, LONGEST, Console, lines, log_files


async def split(pieces: list[bytes]) -> list[bytes]:
    sender, receiver = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            async with sender:
                for piece in pieces:
                    await sender.send_all(piece)

        nursery.start_soon(send)
        return [line async for line in lines(receiver)]
    raise AssertionError


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], []),
        ([b"one\ntwo\n"], [b"one", b"two"]),
        ([b"one\r\n", b"\n", b"last"], [b"one", b"", b"last"]),
        ([b"o", b"ne", b"\n"], [b"one"]),
        ([b"x" * (LONGEST + 3) + b"\n"], [b"x" * LONGEST, b"xxx"]),
    ],
)
async def test_lines(pieces: list[bytes], expected: list[bytes]) -> None:
    assert await split(pieces) == expected


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=10))
def test_the_pieces_do_not_matter(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = [line.removesuffix(b"\r") for line in whole.split(b"\n")]
    if whole.endswith(b"\n") or not whole:
        expected.pop()
    found = trio.run(split, pieces)
    # A last line without its newline keeps its carriage return: more of it might have come.
    assert [line.removesuffix(b"\r") for line in found] == [line.removesuffix(b"\r") for line in expected]


def test_prefix_and_file() -> None:
    out, file = io.BytesIO(), io.BytesIO()
    console = Console(out, width=4)
    console.writer("APP", 0, file)(b"hello")
    console.writer("NODE", 1, None)(b"\xff")
    console.writer("APP", 0, file, console=False)(b"quiet")
    assert out.getvalue() == b"== APP  == hello\n== NODE == \xff\n"
    assert file.getvalue() == b"hello\nquiet\n"


def test_colour() -> None:
    out = io.BytesIO()
    Console(out, color=True).writer("APP", 0, None)(b"hello")
    assert out.getvalue() == b"\x1b[36m== APP ==\x1b[0m hello\n"


def test_a_reader_that_went_away_is_no_error() -> None:
    class Gone(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    write = Console(Gone()).writer("APP", 0, None)
    write(b"one")
    write(b"two")


@pytest.mark.parametrize(
    ("choice", "env", "terminal", "expected"),
    [
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
    ],
)
def test_colour_rules(choice: str, env: dict[str, str], terminal: bool, expected: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    assert use_color(choice, env, Stream()) is expected


def test_only_the_latest_log_files_stay(tmp_path: Path) -> None:
    for run in range(KEPT_LOGS + 3):
        with log_files(tmp_path, ["a-app", "ab-app"], f"{run:02}") as files:
            files("a-app").write(b"x")
    assert [path.name for path in sorted(tmp_path.glob("a-app.*"))] == [
        f"a-app.{run:02}.log" for run in range(3, KEPT_LOGS + 3)
    ]
    assert len(list(tmp_path.glob("ab-app.*"))) == KEPT_LOGS
