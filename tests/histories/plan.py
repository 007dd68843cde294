"""What one seed means: the shape of its run and its faults. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import final

from attrs import frozen

from histories.faults import Fault, link, schedule

__all__ = ["Plan", "Styles", "plan_of"]

Styles = ("callback", "stream", "bulk", "callback")
"""How the subscriber gets its messages, seed by seed."""

PUBLISHER_NODE = "publisher-node"
BROKER = "broker"


@final
@frozen
class Plan:
    """`publishers` share a node; each has `keys` of its own. `subscribers`: instances of the subscribing
    application, each beside a node of its own. `policy`: attempts into the application have a timeout and
    retries. `redeliver` and `processing`: the component's intervals, in milliseconds. `ordered`: the order
    within a key is promised.
    """

    broker: str
    seed: int
    seconds: float
    style: str
    publishers: int
    subscribers: int
    keys: int
    policy: bool
    redeliver: int
    processing: int
    concurrency: int
    ordered: bool
    faults: Sequence[Fault]

    def describe(self) -> str:
        several = f", {self.publishers} to {self.subscribers}"
        policy = ", policy" if self.policy else ""
        order = ", order promised" if self.ordered else ""
        return f"{self.style}{several}{policy}{order}, {self.keys} keys"


def plan_of(broker: str, seed: int, seconds: float) -> Plan:
    """Equal arguments, equal plans.

    SQLite keeps the order within a key come what may. Redis keeps the stream's where one consumer takes one
    message at a time and none fails: every fifth seed there has such a subscriber, left in peace.
    """
    rng = random.Random(f"{broker} {seed}")
    peaceful = broker == "redis" and seed % 5 == 0
    publishers = 2 if seed % 7 < 2 else 1
    subscribers = 2 if seed % 3 == 0 and not peaceful else 1
    targets = targets_of(broker, publishers, subscribers)
    if peaceful:
        spared = {subscriber(0), subscriber_node(0), link(subscriber(0), subscriber_node(0))}
        targets = {kind: [one for one in names if one not in spared] for kind, names in targets.items()}
    return Plan(
        broker=broker,
        seed=seed,
        seconds=seconds,
        style=Styles[seed % len(Styles)],
        publishers=publishers,
        subscribers=subscribers,
        keys=rng.randint(2, 6),
        policy=rng.random() < 0.4,
        redeliver=rng.choice([200, 500]),
        processing=rng.choice([500, 1000]),
        concurrency=1 if peaceful else 10,
        ordered=broker == "sqlite" or peaceful,
        faults=schedule(rng, seconds, **targets),
    )


def targets_of(broker: str, publishers: int, subscribers: int) -> dict[str, list[str]]:
    """The names of all that can be killed or cut, as `schedule` takes them."""
    nodes = [PUBLISHER_NODE, *map(subscriber_node, range(subscribers))]
    others = [*map(publisher, range(publishers)), *map(subscriber, range(subscribers))]
    links = [link(publisher(number), PUBLISHER_NODE) for number in range(publishers)]
    links += [link(subscriber(number), subscriber_node(number)) for number in range(subscribers)]
    if broker == "redis":
        others.append(BROKER)
        links += [link(node, BROKER) for node in nodes]
    return {"nodes": nodes, "others": others, "links": links}


def publisher(number: int) -> str:
    return f"publisher-{number}"


def subscriber(number: int) -> str:
    return f"subscriber-{number}"


def subscriber_node(number: int) -> str:
    return f"subscriber-node-{number}"
