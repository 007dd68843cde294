"""How a state key is prefixed in the store, so that applications sharing one store do not meet each other's
keys.

`keyPrefix` of the component: `appid` (the default), `name` (the component's), `namespace`
(`namespace.appid`), `none`, or any other text, which is then the prefix itself, in lower case: Dapr lowers
it, and a node that did not would not find what a daprd wrote. Prefix and key are joined by `||`, which for
that reason may appear in neither.
"""

from __future__ import annotations

from typing import final

from meshnode.errors import BadRequestDetail, ErrorInfoDetail, InvalidArgument, ResourceInfoDetail

__all__ = ["SEPARATOR", "KeyPrefix"]

SEPARATOR = "||"


@final
class KeyPrefix:
    """Puts the prefix of one store before keys and takes it off again."""

    __slots__ = ("_prefix", "_store")

    def __init__(self, strategy: str, *, store: str, app_id: str, namespace: str) -> None:
        self._store = store
        strategy = strategy.lower() or "appid"
        match strategy:
            case "none":
                prefix = ""
            case "name":
                prefix = store
            case "appid":
                prefix = app_id
            case "namespace":
                prefix = f"{namespace}.{app_id}" if namespace else app_id
            case _:
                prefix = self._legal(strategy)
        self._prefix = f"{prefix}{SEPARATOR}" if prefix else ""

    @property
    def text(self) -> str:
        """The prefix with its separator, or nothing."""
        return self._prefix

    def apply(self, key: str) -> str:
        """The key as the store knows it. Raises `InvalidArgument` for a key with `||` in it."""
        if SEPARATOR in key:
            self._legal(key)
        return self._prefix + key

    @staticmethod
    def strip(stored: str) -> str:
        """The application's key of a stored one."""
        _, separator, key = stored.partition(SEPARATOR)
        return key if separator else stored

    def _legal(self, key: str) -> str:
        if SEPARATOR not in key:
            return key
        message = f"input key/keyPrefix '{key}' can't contain '{SEPARATOR}'"
        raise InvalidArgument(
            message,
            ErrorInfoDetail("DAPR_STATE_ILLEGAL_KEY"),
            ResourceInfoDetail("state", self._store),
            BadRequestDetail([(key, message)]),
        )
