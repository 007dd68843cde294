"""The node's log on a stream: its level, and a reader that goes away."""

from __future__ import annotations

import io
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


def written(level: str) -> list[str]:
    stream = io.StringIO()
    configure_logging(level, as_json=False, app_id="orders", instance="here", stream=stream)
    log = logging.getLogger("meshnode.test")
    log.debug("of little interest")
    log.warning("of some")
    return stream.getvalue().splitlines()


def test_the_level_counts() -> None:
    assert [len(written(level)) for level in ("debug", "info", "warn", "error")] == [2, 1, 1, 0]


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
