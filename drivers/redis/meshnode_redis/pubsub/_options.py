"""The metadata fields of `pubsub.redis`, with Dapr's names and defaults."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_redis._options import ConnectionOptions, bad_durations, seconds

__all__ = ["Options"]

_PROCESSING, _REDELIVER = "60s", "15s"


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `pubsub.redis`."""

    consumer_id: str = option("consumerID", "Name of the consumer group; the app id if empty.", default="")
    processing_timeout: str = option(
        "processingTimeout",
        "How long a message stays with a consumer that gives no sign of life. 0: for ever.",
        default=_PROCESSING,
    )
    redeliver_interval: str = option(
        "redeliverInterval",
        "Pause before a failed message is delivered again, and between looks for abandoned ones. 0: neither "
        "is redelivered.",
        default=_REDELIVER,
    )
    queue_depth: int = option(
        "queueDepth",
        "Most messages that one read takes; never more than can begin at once. 0: no bound but that.",
        default=100,
    )
    concurrency: int = option("concurrency", "Deliveries side by side, per subscription.", default=10)
    max_len_approx: int = option(
        "maxLenApprox", "Length to which a publication trims its stream, about; 0: none.", default=0
    )
    stream_ttl: str = option(
        "streamTTL",
        "Age past which a publication trims entries, about; empty: none. `maxLenApprox` goes before it.",
        default="",
    )
    ack_on_error: bool = option(
        "ackOnError", "A message that the node has given up is done with, not redelivered.", default=False
    )

    def problems(self) -> list[Problem]:
        times = {
            "processingTimeout": self.processing_timeout or _PROCESSING,
            "redeliverInterval": self.redeliver_interval or _REDELIVER,
            "streamTTL": self.stream_ttl or "0",
        }
        found = bad_durations(times)
        if not found:
            found = [
                Problem("must not be negative", field=name)
                for name, text in times.items()
                if seconds(text) < 0
            ]
        if self.concurrency < 1:
            found.append(Problem("must be at least 1", field="concurrency"))
        if self.queue_depth < 0:
            found.append(Problem("must not be negative", field="queueDepth"))
        return [*ConnectionOptions.problems(self), *found]

    @property
    def processing(self) -> float:
        """Seconds; 0 is for ever."""
        return seconds(self.processing_timeout or _PROCESSING)

    @property
    def redelivery(self) -> float:
        """Seconds; 0 is never."""
        return seconds(self.redeliver_interval or _REDELIVER)

    @property
    def redelivers(self) -> bool:
        return self.processing > 0 and self.redelivery > 0

    @property
    def due_after(self) -> float:
        """Seconds without a sign of life after which an entry is anybody's.

        Not only the processing timeout: what has failed starts at the difference of the two (see
        `Group.put_off`), and must not come before its interval.
        """
        return max(self.processing, self.redelivery)

    @property
    def trim_after(self) -> float:
        """Seconds; 0 is never."""
        return seconds(self.stream_ttl or "0")
