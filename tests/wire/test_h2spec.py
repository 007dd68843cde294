"""h2spec, the HTTP/2 conformance suite, against our server: every case passes, the strict ones included."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest
import trio
from wire_service import Echo, serving

pytestmark = pytest.mark.h2spec

# "section: title" of a case that may fail, and why.
EXCEPTIONS: Final[dict[str, str]] = {}

FEWEST_CASES: Final = 146  # of h2spec 2: fewer means that something did not run


async def run_h2spec(target: str, report: Path) -> None:
    program = shutil.which("h2spec")
    if program is None:
        pytest.skip("h2spec is not installed: `make tools` builds it with Go")
    host, _, port = target.rpartition(":")
    options = ["--strict", "--timeout", "5", "--path", "/wire.Test/Echo", "--junit-report", str(report)]
    await trio.run_process(
        [program, "--host", host, "--port", port, *options],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )


async def test_every_case_passes(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    async with serving(Echo()) as (target, server):
        await run_h2spec(target, report)
        assert server.in_flight == 0
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {
        f"{case.get('package')}: {case.get('classname')}": "".join(problem.itertext())
        for case in cases
        for problem in case
        if problem.tag in ("failure", "error", "skipped")
    }
    assert len(cases) >= FEWEST_CASES
    assert {name: text for name, text in failed.items() if name not in EXCEPTIONS} == {}
    assert EXCEPTIONS.keys() <= failed.keys(), "an exception is not needed any more"
