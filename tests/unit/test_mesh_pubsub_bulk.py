"""Bulk subscriptions through whole nodes: which messages come together, and when. The virtual clock says how
long a batch was waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from meshnode_pubsub_in_memory import Broker
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.wire.dapr.proto.runtime import v1 as runtime

SUCCESS = runtime.TopicEventResponseTopicEventResponseStatus.SUCCESS
RETRY = runtime.TopicEventResponseTopicEventResponseStatus.RETRY

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: pubsub.in-memory, version: v1}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec:
  pubsubname: pubsub
  topic: orders
  routes: {default: /orders}
  bulkSubscribe: {enabled: true, maxMessagesCount: %d, maxAwaitDurationMs: 2000}
  metadata: {%s}
"""


class Application(runtime.AppCallbackAlphaBase):
    """Notes its batches and when they came; asks for the `again` once more."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.times: list[float] = []
        self.takes = 0.0
        self.again: set[bytes] = set()

    async def on_bulk_topic_event_alpha_1(
        self, message: runtime.TopicEventBulkRequest
    ) -> runtime.TopicEventBulkResponse:
        self.times.append(trio.current_time())
        batch = {one.entry_id: one.cloud_event.data for one in message.entries if one.cloud_event}
        self.batches.append(list(batch.values()))
        await trio.sleep(self.takes)
        statuses = []
        for entry_id, data in batch.items():
            status = RETRY if data in self.again else SUCCESS
            self.again.discard(data)
            statuses.append(runtime.TopicEventBulkResponseEntry(entry_id=entry_id, status=status))
        return runtime.TopicEventBulkResponse(statuses=statuses)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([Broker().driver])) as mesh:
        yield mesh


async def start(
    mesh: Mesh, app: Application, *, most: int, metadata: str = "", name: str = "one"
) -> MeshNode:
    node = await mesh.start("app", app=[app], resources=RESOURCES % (most, metadata), instance=name)
    await wait_all_tasks_blocked()
    return node


async def publish(node: MeshNode, key: str, *several: int) -> None:
    for number in several:
        await node.dapr.publish_event(
            runtime.PublishEventRequest(
                pubsub_name="pubsub",
                topic="orders",
                data=b"%s%d" % (key.encode(), number),
                data_content_type="text/plain",
                metadata={"partitionKey": key} if key else {},
            )
        )


def of(key: str, *several: int) -> list[bytes]:
    return [b"%s%d" % (key.encode(), number) for number in several]


async def test_messages_of_one_key_fill_batches_in_order(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    node = await start(mesh, app, most=4)
    await publish(node, "a", *range(12))
    await wait_all_tasks_blocked()  # no batch had to be waited for
    assert app.batches == [of("a", 0, 1, 2, 3), of("a", 4, 5, 6, 7), of("a", 8, 9, 10, 11)]


async def test_keys_share_a_batch_and_each_keeps_its_order(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    app.takes = 1.0  # so that messages come faster than batches leave
    node = await start(mesh, app, most=6)
    for number in range(12):
        for key in "abc":
            await publish(node, key, number)
    await trio.sleep(60)
    assert [len(batch) for batch in app.batches] == [6] * 6
    handed_over = [data for batch in app.batches for data in batch]
    assert handed_over == [data for number in range(12) for key in "abc" for data in of(key, number)]


async def test_one_to_be_tried_again_comes_before_what_was_published_later(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Application()
    app.takes, app.again = 2.0, {b"a1"}
    node = await start(mesh, app, most=3)
    await publish(node, "a", *range(9))
    await trio.sleep(60)
    assert app.batches == [of("a", 0, 1, 2), of("a", 3, 4, 5), of("a", 1, 6, 7), of("a", 8)]


async def test_replicas_do_not_share_a_key_at_a_time(mesh: Mesh, autojump_clock: MockClock) -> None:
    """The second replica is idle, yet the first, which has the key, gets all of it."""
    first, second = Application(), Application()
    first.takes = second.takes = 1.0
    node = await start(mesh, first, most=2, name="one")
    await publish(node, "a", 0)
    await trio.sleep(0.5)
    await start(mesh, second, most=2, name="two")
    await publish(node, "a", *range(1, 7))
    await trio.sleep(60)
    assert first.batches + second.batches == [of("a", 0, 1), of("a", 2, 3), of("a", 4, 5), of("a", 6)]
    assert second.batches == []


async def test_a_batch_is_waited_for_since_its_first_message_came(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    """Not since the application was done with the batch before."""
    app = Application()
    app.takes = 5.0
    node = await start(mesh, app, most=3)
    begun = trio.current_time()
    await publish(node, "a", 0, 1, 2)
    await trio.sleep(1)
    await publish(node, "a", 3)
    await trio.sleep(5)
    await publish(node, "a", 4)
    await trio.sleep(60)
    assert app.batches == [of("a", 0, 1, 2), of("a", 3), of("a", 4)]
    # 3 had waited for longer than two seconds when its turn came; so had 4.
    assert [time - begun for time in app.times] == [0, 5, 10]


async def test_a_batch_that_cannot_grow_is_not_waited_for(mesh: Mesh, autojump_clock: MockClock) -> None:
    """No more than two may be under way, so two are all that can come together."""
    app = Application()
    node = await start(mesh, app, most=10, metadata="maxInFlight: '2'")
    begun = trio.current_time()
    await publish(node, "", *range(4))
    await trio.sleep(60)
    assert app.batches == [of("", 0, 1), of("", 2, 3)]
    assert [time - begun for time in app.times] == [0, 0]


async def test_what_waits_for_its_batch_at_a_shutdown_goes_back(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    first, second = Application(), Application()
    node = await start(mesh, first, most=10, name="one")
    await publish(node, "a", 0, 1, 2)
    await wait_all_tasks_blocked()
    await node.stop()
    await start(mesh, second, most=3, name="two")
    await trio.sleep(60)
    assert (first.batches, second.batches) == ([], [of("a", 0, 1, 2)])
