"""Rows and notifications as items, and what of them is new. No I/O.

A notification is JSON, made by the table's trigger: `{"table":…,"action":"UPDATE","data":{row}}`, where a
deletion has the row that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

from attrs import frozen

from meshnode.errors import ConfigurationError
from meshnode.interfaces import ConfigurationItem

__all__ = ["Change", "Items", "changed", "item", "latest", "news_of", "parse", "unseen"]

Items = Mapping[str, ConfigurationItem]


@final
@frozen
class Change:
    """What a notification says; `gone`: the row was deleted, `item` is what it had."""

    key: str
    item: ConfigurationItem
    gone: bool = False

    def shown_in(self, items: Items) -> bool:
        """Whether they are as this change has left its key."""
        return items.get(self.key) == (None if self.gone else self.item)


def item(key: str, value: str, version: str, metadata: str) -> ConfigurationItem:
    """Of a row. Raises `ConfigurationError` where its metadata is no JSON object of texts."""
    if not metadata:
        return ConfigurationItem(value, version)
    try:
        pairs = json.loads(metadata)
    except ValueError as error:
        raise ConfigurationError(f"the metadata of {key} is no JSON: {error}") from error
    if pairs is None:
        return ConfigurationItem(value, version)
    if not isinstance(pairs, dict) or not all(isinstance(one, str) for one in pairs.values()):
        raise ConfigurationError(f"the metadata of {key} is no JSON object of texts")
    return ConfigurationItem(value, version, pairs)


def latest(rows: Iterable[tuple[str, ConfigurationItem]]) -> dict[str, ConfigurationItem]:
    """One item for a key; of several rows the one with the highest number as its version, as in Dapr."""
    found: dict[str, ConfigurationItem] = {}
    for key, one in rows:
        if key not in found or _number(one.version) > _number(found[key].version):
            found[key] = one
    return found


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 else -1


def parse(payload: str) -> Change | None:
    """None for what is no notification of this kind."""
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    data = told.get("data") if isinstance(told, dict) else None
    if not isinstance(data, dict):
        return None
    row = {name.lower(): value for name, value in data.items()}
    if not isinstance(row.get("key"), str):
        return None
    pairs = row.get("metadata")
    metadata = {name: _text(one) for name, one in pairs.items()} if isinstance(pairs, dict) else {}
    return Change(
        row["key"],
        ConfigurationItem(_text(row.get("value")), _text(row.get("version")), metadata),
        gone=str(told.get("action")).upper() == "DELETE",
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def unseen(items: Items, heard: Sequence[Change]) -> list[Change]:
    """Of changes that were heard of around the time when the items were read, those that came after it.

    The items show of each key what the last change before the reading has left. Where more than one may
    have, it is taken to be the last: then nothing is told twice, and nothing out of order.
    """
    shown: dict[str, int] = {}
    for position, change in enumerate(heard):
        if change.shown_in(items):
            shown[change.key] = position
    return [change for position, change in enumerate(heard) if position > shown.get(change.key, -1)]


def news_of(known: Items, change: Change) -> dict[str, ConfigurationItem | None]:
    """What is to be told of a change; nothing where it is known, or where an older row of the key is gone."""
    same = known.get(change.key) == change.item
    if change.gone:
        return {change.key: None} if same else {}
    return {} if same else {change.key: change.item}


def changed(known: Items, found: Items) -> dict[str, ConfigurationItem | None]:
    """From one to the other."""
    changes: dict[str, ConfigurationItem | None] = {key: None for key in known if key not in found}
    changes.update((key, one) for key, one in found.items() if known.get(key) != one)
    return changes
