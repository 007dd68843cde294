"""Lock stores: the Protocol and its value types.

Resources arrive with their prefix already applied (`lock||appid||resource`). A lock is held by an owner, a
text that its taker chooses, until it is released or its time is over. Errors: `ComponentUnavailable` (worth a
retry), `LockError` for the rest.
"""

from __future__ import annotations

import enum
from typing import Protocol, runtime_checkable

__all__ = ["LockStore", "UnlockOutcome"]


class UnlockOutcome(enum.Enum):
    """How a release ended, with the numbers of Dapr's UnlockResponse."""

    SUCCESS = 0
    LOCK_DOES_NOT_EXIST = 1
    LOCK_BELONGS_TO_OTHERS = 2


@runtime_checkable
class LockStore(Protocol):
    """What a lock driver yields. All methods may be called concurrently, by other processes too; cancelling
    one leaves the store usable.
    """

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        """Take the lock for so many seconds, without waiting: its fencing token, or None where somebody holds
        it, the owner itself included.

        Of the tokens of one resource a later one is always greater, so that whoever guards the resource can
        turn away a holder that has been overtaken.
        """
        ...

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        """Release it, if this owner holds it. A lock whose time is over does not exist."""
        ...

    async def ping(self) -> None:
        """Raises `ComponentUnavailable` when the backend does not answer."""
        ...
