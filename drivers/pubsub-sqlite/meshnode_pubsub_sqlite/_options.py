"""The metadata fields of `pubsub.sqlite`."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from attrs import frozen
from meshnode_sqlite_client import locate

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]

_NEVER = timedelta(0)


@final
@frozen
class Options:
    """Metadata of `pubsub.sqlite`."""

    connection_string: str = option(
        "connectionString",
        "Path of the database file, or an SQLite URI. Processes that share the file share the topics.",
        aliases=("url",),
    )
    consumer_id: str = option("consumerID", "Name of the consumer group; the app id if empty.", default="")
    concurrency: int = option("concurrency", "Deliveries side by side, per subscription.", default=10)
    redeliver_interval: timedelta = option(
        "redeliverInterval", "Pause before a message is delivered again.", default=timedelta(seconds=1)
    )
    lease_duration: timedelta = option(
        "leaseDuration",
        "How long a message stays with a process that has stopped answering. A process that lives renews it; "
        "what one held that has ended is taken over at once.",
        default=timedelta(seconds=30),
    )
    poll_interval: timedelta = option(
        "pollInterval",
        "How often the file is looked at for messages of other processes; when all is quiet it grows to five "
        "times that.",
        default=timedelta(milliseconds=20),
    )
    retention: timedelta = option(
        "retention",
        "How long a message is kept after every group is done with it; 0: not at all.",
        default=_NEVER,
    )
    unclaimed_retention: timedelta = option(
        "unclaimedRetention",
        "How long a topic to which nobody has subscribed yet keeps what is published, for who comes first; "
        "0: not at all.",
        default=timedelta(days=1),
    )
    max_length: int = option(
        "maxLength",
        "Messages that a consumer group may have waiting; a publication beyond that is refused. A topic to "
        "which nobody has subscribed yet keeps as many, the newest.",
        default=1_000_000,
    )
    busy_timeout: timedelta = option(
        "busyTimeout",
        "How long to wait for another process that is writing to the same file.",
        default=timedelta(seconds=5),
    )
    timeout: timedelta = option(
        "timeout", "How long one operation may keep the database busy.", default=timedelta(seconds=20)
    )

    def __attrs_post_init__(self) -> None:
        numbers = (("concurrency", self.concurrency), ("maxLength", self.max_length))
        problems = [Problem("must be at least 1", field=name) for name, value in numbers if value < 1]
        least = (
            ("redeliverInterval", self.redeliver_interval, 0.0),
            ("leaseDuration", self.lease_duration, 1.0),
            ("pollInterval", self.poll_interval, 0.001),
            ("retention", self.retention, 0.0),
            ("unclaimedRetention", self.unclaimed_retention, 0.0),
            ("busyTimeout", self.busy_timeout, 0.0),
            ("timeout", self.timeout, 1.0),
        )
        problems += [
            Problem(f"must be at least {seconds:g}s", field=name)
            for name, value, seconds in least
            if value.total_seconds() < seconds
        ]
        if problems:
            raise ConfigError(problems)
        location = locate(self.connection_string)
        if location.in_memory or location.read_only:
            reason = "keeps nothing in a file" if location.in_memory else "cannot be written to"
            remedy = "use pubsub.in-memory" if location.in_memory else ""
            raise ConfigError([Problem(f"the database {reason}", field="connectionString", remedy=remedy)])
