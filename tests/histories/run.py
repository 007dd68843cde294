"""One seed's run of pub/sub, from an empty folder to a verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

import trio
from attrs import field, frozen

from histories import plan as names
from histories.checker import Verdict, check, read_history
from histories.faults import link
from histories.plan import Plan
from histories.records import read_records
from histories.resources import PUBSUB, TOPIC, pubsub_resources
from histories.stage import Stage, until

__all__ = ["Result", "run", "set_subscriber", "until_subscribed"]

_LONGER = 1.0
"""Seconds for which there is publishing after the last fault."""


@final
@frozen
class Result:
    """`trouble`: what is wrong beside the verdict, a line each. `recovery`: seconds from the last fault until
    nothing was owed any more.
    """

    plan: Plan
    verdict: Verdict
    trouble: list[str]
    faults: Mapping[str, int] = field(factory=dict)
    recovery: float = 0.0

    @property
    def violations(self) -> list[str]:
        return [*self.trouble, *self.verdict.violations(ordered=self.plan.ordered)]


async def run(plan: Plan, folder: Path) -> Result:
    """Play it. `folder` is empty; it has everybody's records and logs afterwards."""
    stage = _set(plan, folder)
    trouble = []
    async with stage.running():
        if not await until_subscribed(stage, plan.style, plan.subscribers):
            trouble.append("nobody subscribed")
        await _misbehave(stage, plan)
        began = trio.current_time()
        for number in range(plan.publishers):
            await stage.daemons[names.publisher(number)].wait()
        verdict = await _verdict(stage)
        recovery = trio.current_time() - began
        trouble += stage.falls()
    return Result(plan, verdict, trouble, stage.applied, recovery)


async def _verdict(stage: Stage) -> Verdict:
    """The first one by which nothing is owed, or the last one that patience allows.

    No later one: copies that nobody acknowledged may still be coming, and are cut off where the run ends.
    """
    verdict = Verdict()

    def settled() -> bool:
        nonlocal verdict
        verdict = check(read_history(read_records(stage.records)))
        return verdict.settled

    await until(settled)
    return verdict


def _set(plan: Plan, folder: Path) -> Stage:
    stage = Stage(folder, plan.seed)
    broker = stage.port() if plan.broker == "redis" else 0
    if broker:
        stage.redis(names.BROKER, broker)

    def resources(node: str) -> str:
        port = stage.link(node, names.BROKER, broker) if broker else 0
        return pubsub_resources(plan, redis_port=port, database=folder / "messages.db")

    api = stage.port()
    stage.node(names.PUBLISHER_NODE, "publisher", api, resources(names.PUBLISHER_NODE))
    for number in range(plan.publishers):
        stage.link(names.publisher(number), names.PUBLISHER_NODE, api)
    for number in range(plan.subscribers):
        set_subscriber(stage, number, plan.style, resources(names.subscriber_node(number)))
    return stage


def set_subscriber(stage: Stage, number: int, style: str, resources: str) -> None:
    """A stream goes from the application to its node, callbacks the other way."""
    app, node = names.subscriber(number), names.subscriber_node(number)
    api, port = stage.port(), stage.port()
    common = {"style": style, "pubsub": PUBSUB, "topic": TOPIC}
    if style == "stream":
        stage.node(node, "subscriber", api, resources)
        stage.application(app, "subscriber", address=f"127.0.0.1:{stage.link(app, node, api)}", **common)
    else:
        stage.node(node, "subscriber", api, resources, stage.link(app, node, port))
        stage.application(app, "subscriber", port=port, **common)


async def until_subscribed(stage: Stage, style: str, subscribers: int) -> bool:
    """A node tells of a callback's subscription in its log, an application of its stream's."""
    if style == "stream":
        return await until(lambda: stage.count("listening") >= subscribers)
    logs = [stage.daemons[names.subscriber_node(number)].log for number in range(subscribers)]
    return await until(lambda: all("is subscribed to topic" in log.read_text() for log in logs))


async def _misbehave(stage: Stage, plan: Plan) -> None:
    """Publish while the schedule is played, and a bit longer."""
    end = time.monotonic_ns() + int((plan.seconds + _LONGER) * 1e9)
    for number in range(plan.publishers):
        name = names.publisher(number)
        address = f"127.0.0.1:{stage.links[link(name, names.PUBLISHER_NODE)].port}"
        common = {"pubsub": PUBSUB, "topic": TOPIC, "keys": plan.keys, "until": end}
        await stage.application(name, "publisher", address=address, **common).start()
    await until(lambda: stage.count("acknowledged") > 0)
    await stage.play(plan.faults)
