"""`bindings.cron`: events on a schedule, written as Dapr's component of that name takes it.

Imports meshnode.interfaces and meshnode.errors only.

    _parser.py     a schedule's text into what it means; no clock
    _schedule.py   the instants a schedule names; no clock either
    _zones.py      the time zone of the machine
    _binding.py    the metadata field, waiting, firing
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext
from meshnode_bindings_cron._binding import CronBinding, Options
from meshnode_bindings_cron._parser import parse_schedule
from meshnode_bindings_cron._schedule import Calendar, Every

__all__ = ["Calendar", "CronBinding", "Every", "Options", "driver", "parse_schedule"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[CronBinding]:
    yield CronBinding(options, context)


driver: Driver[CronBinding] = Driver(
    type="bindings.cron",
    metadata=Options,
    open=_open,
    summary="Events on a schedule.",
)
