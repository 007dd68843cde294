"""The conformance suite of state stores.

A check is an object with a name; call it with a function that opens the store. Under pytest:

    import pytest
    from meshnode.testing.conformance import state

    @pytest.mark.parametrize("check", state.CHECKS, ids=str)
    async def test_conformance(check, open_store):
        if not await check.run(open_store):
            pytest.skip("the store does not offer what this check is about")

`open_store` takes nothing and returns an async context manager that yields the store, for instance
`lambda: driver.open(options, context)`. It may yield the same data every time or a fresh store: each check
uses keys of its own and never looks at others'. Without pytest, `await run_state_conformance(open_store)`
runs everything and returns the names of the checks that applied; the first violation raises
`ConformanceError`.

What may differ between stores is not checked: whether `LAST_WRITE` with an etag looks at it, whether a write
without `ttl` ends an earlier expiry, and whether a key once written with `FIRST_WRITE` can be overwritten
without its etag. What queries look for is saved with the content type `application/json`.

The checks themselves are in `_state_*.py`. May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from meshnode.testing.conformance import _state_concurrency, _state_crud, _state_query, _state_transactions
from meshnode.testing.conformance._state_check import ConformanceError, OpenStore, StateCheck

__all__ = ["CHECKS", "ConformanceError", "OpenStore", "StateCheck", "run_state_conformance"]

CHECKS: tuple[StateCheck, ...] = (
    *_state_crud.CHECKS,
    *_state_transactions.CHECKS,
    *_state_concurrency.CHECKS,
    *_state_query.CHECKS,
)


async def run_state_conformance(open_store: OpenStore) -> list[str]:
    """Runs every check the store's features call for; returns the names of those that ran."""
    return [check.name for check in CHECKS if await check.run(open_store)]
