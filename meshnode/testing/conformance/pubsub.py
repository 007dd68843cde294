"""The conformance suite of pub/sub brokers.

A check is an object with a name; run it with a `Setup`, which says how to open the broker as a member of a
consumer group and what the broker promises. Under pytest:

    import pytest
    from meshnode.testing.conformance import pubsub

    PROMISES = pubsub.Promises(
        features=frozenset({PubSubFeature.BULK_PUBSUB}), keeps_order=True, order_key=True, durable=False
    )

    @pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
    async def test_conformance(check, server):
        def open_group(group):
            return driver.open(Options(host=server.address, consumer_id=group), CONTEXT)

        assert await check.run(pubsub.Setup(open_group, PROMISES))

Each check uses topics and groups of its own, so brokers may outlive a run. Without pytest,
`await run_pubsub_conformance(setup)` runs everything and returns the names of the checks that applied; the
first violation raises `ConformanceError`.

Every wait is bounded by `Setup.patience`, and nothing is measured. What may differ is not checked: the order
of messages without a key while several are under way, and how soon a message is tried again.

The checks themselves are in `_pubsub_*.py`. May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from meshnode.testing.conformance import _pubsub_messages, _pubsub_order, _pubsub_outcomes
from meshnode.testing.conformance._check import ConformanceError
from meshnode.testing.conformance._pubsub_check import OpenGroup, Promises, PubSubCheck, Setup, Wildcard

__all__ = [
    "CHECKS",
    "ConformanceError",
    "OpenGroup",
    "Promises",
    "PubSubCheck",
    "Setup",
    "Wildcard",
    "checks_for",
    "run_pubsub_conformance",
]

CHECKS: tuple[PubSubCheck, ...] = (
    *_pubsub_messages.CHECKS,
    *_pubsub_outcomes.CHECKS,
    *_pubsub_order.CHECKS,
)


def checks_for(promises: Promises) -> tuple[PubSubCheck, ...]:
    """The checks that a broker with these promises must pass."""
    return tuple(check for check in CHECKS if check.applies(promises))


async def run_pubsub_conformance(setup: Setup) -> list[str]:
    """Runs every check that the setup's promises call for; returns the names of those that ran."""
    return [check.name for check in CHECKS if await check.run(setup)]
