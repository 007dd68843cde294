"""The producer and the consumers of one component: its options in aiokafka's words."""

from __future__ import annotations

import logging
import random
from typing import Any, final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.coordinator.assignors.range import RangePartitionAssignor  # type: ignore[import-untyped]
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor  # type: ignore[import-untyped]
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor  # type: ignore[import-untyped]

from meshnode_kafka._options import Options
from meshnode_kafka._reader import MOST_GRACE_SECONDS
from meshnode_kafka._records import partitioner
from meshnode_kafka._security import security

__all__ = ["Clients"]

# Its own log repeats every failed attempt, ten times a second; what matters of them is in our errors.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

_DEFAULT_MESSAGE_BYTES = 1024 * 1024
_MILLISECONDS = 1000
_FOREVER = 2**31 - 1
_PRODUCER_REQUEST_SECONDS = 10
_REBALANCE_SECONDS = 30
"""What the group's other members have to give up their partitions: more than `MOST_GRACE_SECONDS`, twice."""

_CONSUMER_REQUEST_SECONDS = 40
"""Longer than a rebalance, for joining is a request that waits for the others."""

_ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
}

assert 2 * MOST_GRACE_SECONDS < _REBALANCE_SECONDS < _CONSUMER_REQUEST_SECONDS


@final
class Clients:
    """Makes clients, not started; on the asyncio side. Raises `ConfigError` for unusable certificates."""

    def __init__(self, options: Options, app_id: str, rng: random.Random) -> None:
        self._options = options
        self._partitioner = partitioner(rng)
        idle = options.keep_alive_interval.total_seconds()
        self._common: dict[str, Any] = {
            "bootstrap_servers": [address.strip() for address in options.brokers.split(",")],
            "client_id": options.client_id or app_id,
            "metadata_max_age_ms": round(options.refresh_interval.total_seconds() * _MILLISECONDS),
            "connections_max_idle_ms": round(idle * _MILLISECONDS) if idle else None,
            **security(options),
        }

    def producer(self) -> AIOKafkaProducer:
        options = self._options
        compression = options.compression.lower()
        return AIOKafkaProducer(
            **self._common,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=_PRODUCER_REQUEST_SECONDS * _MILLISECONDS,
            max_request_size=options.max_message_bytes or _DEFAULT_MESSAGE_BYTES,
            compression_type=None if compression in ("", "none") else compression,
            partitioner=self._partitioner,
        )

    def consumer(self, group: str) -> AIOKafkaConsumer:
        options = self._options
        return AIOKafkaConsumer(
            **self._common,
            group_id=group,
            enable_auto_commit=False,
            # The end is sought where it is wanted; a position that the broker has no more is the oldest.
            auto_offset_reset="earliest",
            fetch_min_bytes=options.consumer_fetch_min,
            max_partition_fetch_bytes=options.consumer_fetch_default,
            isolation_level=options.isolation_level.lower() or "read_uncommitted",
            partition_assignment_strategy=(_ASSIGNORS[options.rebalance_strategy.lower()],),
            heartbeat_interval_ms=round(options.heartbeat_interval.total_seconds() * _MILLISECONDS),
            session_timeout_ms=round(options.session_timeout.total_seconds() * _MILLISECONDS),
            rebalance_timeout_ms=_REBALANCE_SECONDS * _MILLISECONDS,
            request_timeout_ms=_CONSUMER_REQUEST_SECONDS * _MILLISECONDS,
            # A delivery may take as long as it likes: heartbeats say that we live, not fetches.
            max_poll_interval_ms=_FOREVER,
        )
