"""A member of a consumer group: it takes messages and commits what is done.

Runs on the asyncio side, in the same thread as trio's: what it has taken waits in its partitions, and
`arrival` wakes the subscription. Nothing is handed over by a return value, so a cancellation loses nothing.

A rebalance takes all partitions away before it deals them out anew. Before ours are given up, what is under
way may finish for a while, then it is cancelled; what is done is committed.

Positions: a group that has committed nothing begins at the end, or at the beginning for `oldest`, and commits
that at once, so that what comes later is not skipped when the partition changes hands before its first
message is done. Partitions that appear later are read from their beginning.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from logging import Logger
from typing import Any, final

import trio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener  # type: ignore[import-untyped]
from aiokafka import errors as kafka
from aiokafka.structs import TopicPartition  # type: ignore[import-untyped]

from meshnode_kafka._closing import close_consumer, end
from meshnode_kafka._errors import TROUBLE
from meshnode_kafka._partition import Entry, Partition

__all__ = ["MOST_GRACE_SECONDS", "Reader"]

MOST_GRACE_SECONDS = 10.0

_COMMIT_SECONDS = 2.0
"""How long a commit may take before partitions are given up."""

_COMMIT_PAUSE = 0.1
"""Between two commits while messages keep coming."""

_POLL_MILLISECONDS = 60_000
_TOPIC_SECONDS = 1.0
"""Between two looks for a topic that does not exist yet."""

_NO_PARTITION = TopicPartition("", -1)
"""Asked for when nothing else is wanted: the client reports its errors to whoever fetches."""


@final
class Reader(ConsumerRebalanceListener):  # type: ignore[misc]
    """`make` makes a consumer, not started. `most`: messages of a partition that may wait here. `reach`: how
    many of its messages may be open, see `Partition`. `grace`: how long, in seconds, deliveries may go on
    when a rebalance asks for their partitions; the group waits for us meanwhile.
    """

    def __init__(
        self,
        make: Callable[[], AIOKafkaConsumer],
        topics: Sequence[str],
        *,
        most: int,
        reach: int,
        from_newest: bool,
        grace: float,
        log: Logger,
    ) -> None:
        self._make = make
        self._topics = topics
        self._most = most
        self._reach = reach
        self._from_newest = from_newest
        self._grace = min(grace, MOST_GRACE_SECONDS)
        self._log = log
        self._consumer: Any = None
        self._partitions: dict[TopicPartition, Partition] = {}
        self._ready: OrderedDict[Partition, None] = OrderedDict()
        self._positions = count(1)
        self._known: dict[str, int] | None = None
        self._assigned = asyncio.Event()
        self._dirty = asyncio.Event()
        self._fetch: asyncio.Task[Any] | None = None
        self._commit_task: asyncio.Task[None] | None = None
        self.settled = trio.Event()
        """Set when the group has been joined and positions are certain."""
        self._arrived = trio.Event()

    # For the subscription, on trio's side.

    async def arrival(self) -> None:
        """Returns when there is a partition to take."""
        while not self._ready:
            self._arrived = trio.Event()
            await self._arrived.wait()

    def take(self) -> tuple[Partition, Entry] | None:
        """A message to deliver, to be given to `release`. Partitions take turns."""
        if not self._ready:
            return None
        partition, _ = self._ready.popitem(last=False)
        entry = partition.begin(next(self._positions))
        self._offer(partition)
        if not partition.waiting:
            self._fetch_anew()
        return partition, entry

    def release(self, partition: Partition, entry: Entry) -> None:
        """Its delivery has ended, whatever the outcome."""
        partition.end(entry)
        if partition.uncommitted() is not None:
            self._dirty.set()
        if not partition.gone.is_set():
            self._offer(partition)

    def _offer(self, partition: Partition) -> None:
        if partition.may_begin:
            self._ready[partition] = None
            self._arrived.set()

    # The member's life.

    async def run(self) -> None:
        """Until cancelled; then what is done is committed and the group left. Raises one of `TROUBLE`."""
        self._consumer = self._make()
        try:
            await self._consumer.start()
            await self._look_for_topics()
            self._consumer.subscribe(self._topics, listener=self)
            await _side_by_side(
                self._watch_topics(), self._settle_again(), self._fetch_on(), self._commit_on()
            )
        finally:
            await self._leave()

    async def _leave(self) -> None:
        partitions = list(self._partitions.values())
        self._partitions.clear()
        await self._commit_last(partitions)
        await close_consumer(self._consumer)

    # Topics that do not exist yet.

    def _missing(self) -> list[str]:
        return [topic for topic in self._topics if not self._consumer.partitions_for_topic(topic)]

    async def _look_for_topics(self) -> None:
        """Asking for a topic creates it, where the brokers do that; it takes them a moment."""
        self._consumer._client.set_topics(self._topics)
        for _ in range(10):
            await self._consumer._client.force_metadata_update()
            if not self._missing():
                return
            await asyncio.sleep(0.05)

    async def _watch_topics(self) -> None:
        """A subscription may be older than its topic."""
        missing = self._missing()
        if missing:
            self._log.warning("kafka: topic %s does not exist yet", ", ".join(missing))
        while self._missing():
            await asyncio.sleep(_TOPIC_SECONDS)
            await self._consumer._client.force_metadata_update()

    # Rebalances. aiokafka calls these two, and waits for them.

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        partitions = list(self._partitions.values())
        self._partitions.clear()
        self._ready.clear()
        for partition in partitions:
            partition.give_up()
        self._stop_commit()
        await _until_idle(partitions, self._grace)
        for partition in partitions:
            partition.cancel()
        await _until_idle(partitions, self._grace)
        await self._commit_last(partitions)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Nothing may be awaited here: until this returns nobody looks for a coordinator that has gone.
        if self._known is None:
            names = self._topics
            self._known = {name: len(self._consumer.partitions_for_topic(name) or ()) for name in names}
        self._partitions = {name: Partition(name, self._reach) for name in assigned}
        self._assigned.set()

    async def _settle_again(self) -> None:
        while True:
            await self._assigned.wait()
            self._assigned.clear()
            partitions = list(self._partitions.values())
            try:
                await self._settle(partitions)
            except (kafka.IllegalStateError, kafka.CommitFailedError):
                continue  # a rebalance takes them away, and deals them out again
            for partition in partitions:
                partition.settled = True
            self.settled.set()
            self._fetch_anew()

    async def _settle(self, partitions: Sequence[Partition]) -> None:
        first: dict[TopicPartition, int] = {}
        for partition in partitions:
            name = partition.name
            if await self._consumer.committed(name) is not None:
                continue
            if self._from_newest and name.partition < (self._known or {}).get(name.topic, 0):
                await self._consumer.seek_to_end(name)
            first[name] = await self._consumer.position(name)
        if first:
            await self._consumer.commit(first)

    # Messages.

    def _fetch_anew(self) -> None:
        """What is wanted has changed."""
        if self._fetch is not None:
            self._fetch.cancel()

    async def _fetch_on(self) -> None:
        try:
            while True:
                ready = [one.name for one in self._partitions.values() if one.settled and not one.waiting]
                self._fetch = asyncio.ensure_future(
                    self._consumer.getmany(
                        *(ready or [_NO_PARTITION]), timeout_ms=_POLL_MILLISECONDS, max_records=self._most
                    )
                )
                await asyncio.wait({self._fetch})
                if not self._fetch.cancelled():
                    self._receive(self._fetch.result())
        finally:
            await end(self._fetch)

    def _receive(self, records: dict[TopicPartition, list[Any]]) -> None:
        for name, some in records.items():
            partition = self._partitions.get(name)
            if partition is None or not some:
                continue
            partition.add(some)
            self._offer(partition)

    # Commits.

    async def _commit_on(self) -> None:
        try:
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                self._commit_task = asyncio.ensure_future(self._commit(list(self._partitions.values())))
                await asyncio.wait({self._commit_task})
                if not self._commit_task.cancelled():
                    self._commit_task.result()
                await asyncio.sleep(_COMMIT_PAUSE)
        finally:
            await end(self._commit_task)

    async def _commit(self, partitions: Sequence[Partition]) -> None:
        offsets = {one.name: offset for one in partitions if (offset := one.uncommitted()) is not None}
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except (kafka.IllegalStateError, kafka.CommitFailedError) as error:
            # The partitions have gone to somebody else, who gets these messages again.
            self._log.info("kafka: offsets were not committed: %s", error)
            return
        for partition in partitions:
            if partition.name in offsets:
                partition.committed = offsets[partition.name]

    async def _commit_last(self, partitions: Sequence[Partition]) -> None:
        """Before they are given up. What cannot be committed comes again."""
        try:
            async with asyncio.timeout(_COMMIT_SECONDS):
                await self._commit(partitions)
        except TROUBLE as error:
            self._log.warning("kafka: offsets were not committed: %r", error)

    def _stop_commit(self) -> None:
        """One that is still being tried must not come after the next owner's."""
        if self._commit_task is not None:
            self._commit_task.cancel()


async def _until_idle(partitions: Sequence[Partition], seconds: float) -> None:
    waits = [asyncio.ensure_future(one.idle.wait()) for one in partitions if not one.idle.is_set()]
    if not waits:
        return
    await asyncio.wait(waits, timeout=seconds)
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


async def _side_by_side(*parts: Coroutine[Any, Any, None]) -> None:
    """Until one fails, whose error comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
