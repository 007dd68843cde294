"""The README's guide to a driver, followed word for word: its files are written, its commands run in a shell
of a user's own, and what it shows of their output is there.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from attrs import frozen
from support.processes import surroundings_of
from support.venvs import make_venv

README = Path(__file__).resolve().parent.parent.parent / "README.md"


@frozen
class File:
    path: str
    text: str


@frozen
class Command:
    line: str
    shown: tuple[str, ...]


def steps(section: str) -> Iterator[File | Command]:
    """In their order: fenced blocks that begin with the name of a file, and indented lines that begin with
    a prompt, each with what is shown below it.
    """
    for fenced, path, text, plain in re.findall(
        r"```(\w+)\n# (\S+)\n(.*?)```\n|((?:^    [^\n]*\n)+)", section, re.DOTALL | re.MULTILINE
    ):
        if fenced:
            yield File(path, text)
            continue
        for entry in re.split(r"^    \$ ", plain, flags=re.MULTILINE)[1:]:
            line, *shown = (one.removeprefix("    ") for one in entry.rstrip("\n").split("\n"))
            yield Command(line, tuple(shown))


def guide() -> list[File | Command]:
    (section,) = re.findall(r"^## Write a driver\n(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    return list(steps(section))


def run(command: Command, folder: Path, env: Mapping[str, str]) -> Path:
    """Returns the folder in which the shell is afterwards."""
    script = f"{command.line}\ncode=$?\npwd >&3\nexit $code"
    with (Path(env["HOME"]) / "pwd").open("w+") as place:
        ran = subprocess.run(
            ["bash", "-c", f'exec 3>"{place.name}"\n{script}'],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command.line}\n{ran.stdout}"
        expect_shown(command, ran.stdout)
        return Path(place.read().strip())


def expect_shown(command: Command, output: str) -> None:
    """Every line that the guide shows, in its order; `…` is anything."""
    lines = iter(output.splitlines())
    for wanted in command.shown:
        parts = (r"\s+".join(map(re.escape, part.split())) for part in wanted.split("…"))
        pattern = re.compile(".*".join(parts))
        found = any(pattern.fullmatch(line.strip()) for line in lines)
        assert found, f"{command.line} does not show {wanted!r}:\n{output}"


def test_the_guide_leads_to_a_driver(tmp_path: Path) -> None:
    env = make_venv(tmp_path / "venv") | surroundings_of(tmp_path) | {"HOME": str(tmp_path)}
    folder = tmp_path / "work"
    folder.mkdir()
    taken = guide()
    assert sum(isinstance(step, Command) for step in taken) >= 10
    assert sum(isinstance(step, File) for step in taken) >= 5
    for step in taken:
        if isinstance(step, File):
            (folder / step.path).parent.mkdir(exist_ok=True)
            (folder / step.path).write_text(step.text)
        else:
            folder = run(step, folder, env)


def test_what_is_not_shown_is_noticed() -> None:
    expect_shown(Command("x", ("one …", "… three")), "one 1\ntwo\n12 three\n")
    for shown in (("one …", "one …"), ("four",), ("three", "one")):
        with pytest.raises(AssertionError, match="does not show"):
            expect_shown(Command("x", shown), "one 1\ntwo\nthree\n")
