"""The node's log on a stream: its two forms, and a reader that goes away."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from meshnode.telemetry.logs import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logger = logging.getLogger("meshnode")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def written(*, as_json: bool, level: str = "info") -> str:
    stream = io.StringIO()
    configure_logging(level, as_json=as_json, app_id="orders", instance="here", stream=stream)
    log = logging.getLogger("meshnode.test")
    log.debug("unheard of")
    log.warning('two words and a "quote"\n', extra={"fields": {"method": "a b", "n": 1}})
    return stream.getvalue()


def test_text_is_one_line_of_keys_and_values() -> None:
    (line,) = written(as_json=False).splitlines()
    assert line.startswith('time="')
    assert r'level=warning msg="two words and a \"quote\"\n" app_id=orders instance=here' in line
    assert line.endswith('method="a b" n=1')
    assert "scope=meshnode.test type=log" in line


def test_json_has_the_same_keys() -> None:
    (line,) = written(as_json=True).splitlines()
    record = json.loads(line)
    assert record["msg"] == 'two words and a "quote"\n'
    assert (record["level"], record["scope"], record["n"]) == ("warning", "meshnode.test", "1")


def test_the_level_counts() -> None:
    assert len(written(as_json=False, level="debug").splitlines()) == 2
    assert written(as_json=False, level="error") == ""


def test_a_reader_that_goes_away_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        configure_logging("info", as_json=False, app_id="orders", instance="here", stream=stream)
        os.close(reader)
        log = logging.getLogger("meshnode.test")
        log.info("nobody hears this")
        log.info("nor this")
        assert logging.getLogger("meshnode").handlers == []
    assert capfd.readouterr().err == ""
