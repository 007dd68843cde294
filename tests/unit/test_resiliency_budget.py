"""The retry budget, alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshnode.resiliency.budget import RESERVE, WINDOW, RetryBudget


def spend(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


def test_a_quiet_target_has_its_reserve() -> None:
    budget = RetryBudget(0.2)
    assert budget.available(0.0) == RESERVE
    assert spend(budget, 0.0) == RESERVE
    assert budget.available(0.0) == 0


def test_a_share_of_traffic_comes_on_top() -> None:
    budget = RetryBudget(0.2)
    for _ in range(100):
        budget.deposit(1.0)
    assert spend(budget, 1.0) == RESERVE + 20


def test_what_left_the_window_is_forgotten() -> None:
    budget = RetryBudget(0.5)
    for _ in range(100):
        budget.deposit(0.0)
    assert all(budget.withdraw(WINDOW - 0.1) for _ in range(20))
    assert budget.available(WINDOW - 0.1) == RESERVE + 30
    # The traffic is gone a window later, the retries made at its end are not.
    assert budget.available(float(WINDOW)) == 0
    assert budget.available(2.0 * WINDOW) == RESERVE


@given(
    share=st.floats(0.0, 1.0),
    events=st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=200),
)
def test_never_more_than_its_share_within_a_window(share: float, events: list[tuple[float, bool]]) -> None:
    budget = RetryBudget(share)
    history: list[tuple[int, bool]] = []
    now = 0.0
    for pause, is_request in events:
        now += pause
        recent = [kind for second, kind in history if second > int(now) - WINDOW]
        if is_request:
            budget.deposit(now)
            history.append((int(now), True))
            continue
        allowed = recent.count(False) + 1 <= share * recent.count(True) + RESERVE
        assert budget.withdraw(now) is allowed
        if allowed:
            history.append((int(now), False))
