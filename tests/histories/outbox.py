"""One seed's run of the outbox: transactions at a node that is killed again and again, events at another."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import trio
from attrs import field, frozen

from histories import plan as names
from histories.checker import read_history
from histories.faults import Fault, Kind, link, schedule
from histories.records import read_records
from histories.resources import outbox_resources, reader_resources
from histories.run import set_subscriber, until_subscribed
from histories.stage import Stage, until
from histories.transactions import OutboxVerdict, check_outbox

__all__ = ["OutboxPlan", "OutboxResult", "outbox_plan", "run_outbox"]

TRANSACTOR, SHOP = "transactor", "shop-node"
_STORE = "orders"


@final
@frozen
class OutboxPlan:
    """`keys`: transactions side by side. `kills`: seconds from the first transaction that is acknowledged
    until the node is killed, for each of its lives. `faults` are those of the rest.
    """

    seed: int
    keys: int
    kills: Sequence[float]
    faults: Sequence[Fault]

    def describe(self) -> str:
        return f"outbox, {self.keys} at a time, {len(self.kills)} lives"


@final
@frozen
class OutboxResult:
    plan: OutboxPlan
    verdict: OutboxVerdict
    trouble: list[str]
    faults: Mapping[str, int] = field(factory=dict)
    recovery: float = 0.0

    @property
    def violations(self) -> list[str]:
        return [*self.trouble, *self.verdict.violations]


def outbox_plan(seed: int, seconds: float) -> OutboxPlan:
    """Kills at the rate of one a second, as if the node came back in no time. In every other run the reader
    and the way to the node have faults of their own.
    """
    rng = random.Random(f"outbox {seed}")
    keys = rng.randint(2, 8)
    kills = tuple(rng.uniform(0, 0.6) for _ in range(max(1, round(seconds))))
    faults: tuple[Fault, ...] = ()
    if seed % 2:
        nodes, others = [names.subscriber_node(0)], [names.subscriber(0)]
        faults = schedule(rng, seconds, nodes=nodes, others=others, links=[link(TRANSACTOR, SHOP)])
    return OutboxPlan(seed, keys, kills, faults)


async def run_outbox(plan: OutboxPlan, folder: Path) -> OutboxResult:
    """Play it. `folder` is empty; it has everybody's records and logs afterwards."""
    stage = Stage(folder, plan.seed)
    database = folder / "messages.db"
    api = stage.port()
    set_subscriber(stage, 0, "callback", reader_resources(database))
    stage.link(TRANSACTOR, SHOP, api)
    trouble = []
    async with stage.running():
        if not await until_subscribed(stage, "callback", 1):
            trouble.append("nobody subscribed")
        stage.node(SHOP, "shop", api, outbox_resources(_STORE, folder / "state.db", database))
        await stage.daemons[SHOP].start()
        await _misbehave(stage, plan)
        began = trio.current_time()
        await stage.daemons[TRANSACTOR].wait()
        if not await until(lambda: _is_quiet(database)):
            trouble.append("the broker was not empty in time after the last fault")
        recovery = trio.current_time() - began
        if not await _audit(stage):
            trouble.append("the state could not be read")
        trouble += stage.falls()
    return OutboxResult(plan, _verdict(stage), trouble, stage.applied, recovery)


def _verdict(stage: Stage) -> OutboxVerdict:
    records = list(read_records(stage.records))
    found = {one["id"] for one in records if one["what"] == "found"}
    return check_outbox(read_history(records), found)


async def _misbehave(stage: Stage, plan: OutboxPlan) -> None:
    """The transactor does not wait for its node: the first transactions come as early as they can."""
    over = stage.folder / "over"
    transactor = stage.application(
        TRANSACTOR,
        "transactor",
        address=f"127.0.0.1:{stage.links[link(TRANSACTOR, SHOP)].port}",
        store=_STORE,
        keys=plan.keys,
        over=str(over),
    )
    await transactor.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.play, plan.faults)
        for delay in plan.kills:
            await _progress(stage)
            await trio.sleep(delay)
            stage.applied[Kind.KILL.value] += 1
            await stage.daemons[SHOP].kill()
            await stage.daemons[SHOP].start()
    await _progress(stage)
    over.touch()


async def _progress(stage: Stage) -> None:
    """Until one more transaction is acknowledged."""
    before = stage.count("acknowledged")
    await until(lambda: stage.count("acknowledged") > before)


def _is_quiet(database: Path) -> bool:
    """Whether every group is done with every message, internal ones included: looked up behind the driver's
    back, for no API tells.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5) as connection:
        (waiting,) = connection.execute("SELECT count(*) FROM pubsub_deliveries").fetchone()
    connection.close()
    return not waiting


async def _audit(stage: Stage) -> bool:
    address = f"127.0.0.1:{stage.links[link(TRANSACTOR, SHOP)].port}"
    auditor = stage.application("auditor", "transactor", address=address, store=_STORE, audit=True)
    await auditor.start()
    return await until(lambda: stage.count("audited") > 0)
