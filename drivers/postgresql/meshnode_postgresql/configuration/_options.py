"""The metadata fields of `configuration.postgresql`, with Dapr's names and defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_postgresql._options import ConnectionOptions
from meshnode_postgresql._text import bad_channel, bad_name

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `configuration.postgresql`."""

    table: str = option("table", "The table of the items, with a schema before it or without.")
    notify_channel: str = option(
        "notifyChannel",
        "The channel that the table's trigger notifies; without it a subscription names one in its own "
        "metadata, `pgNotifyChannel`.",
        default="",
        aliases=("pgNotifyChannel",),
    )
    connection_max_idle_time: timedelta = option(
        "connectionMaxIdleTime",
        "After how long an unused connection is closed; 0: the connection string's, else 30m.",
        default=timedelta(0),
        aliases=("connMaxIdleTime",),
    )

    def problems(self) -> list[Problem]:
        found = [*super().problems(), *bad_name(self.table, "table")]
        if self.notify_channel and (complaint := bad_channel(self.notify_channel)):
            found.append(Problem(complaint, field="notifyChannel"))
        return found
