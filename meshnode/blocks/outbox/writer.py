"""The transaction's side of the outbox."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import final

from attrs import evolve

from meshnode.blocks.call import Call
from meshnode.blocks.ids import fresh_id
from meshnode.blocks.outbox.marks import Mark, bury, look, marker_write
from meshnode.blocks.outbox.settings import OutboxSettings
from meshnode.blocks.pubsub.brokers import Brokers, pubsub_error
from meshnode.blocks.pubsub.envelope import wrap
from meshnode.blocks.pubsub.publishing import Publishing
from meshnode.blocks.state import Announced
from meshnode.errors import ComponentUnavailable, InvalidArgument, MeshError, Status
from meshnode.interfaces import PublishRequest, StateOperation, StateStore
from meshnode.transport import HeaderBlock
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["OVERRIDES", "STORE", "OutboxWriter"]

OVERRIDES = "outboxmetadata"
"""Extension of an internal message: the publisher's `cloudevent.*` metadata for the event."""

STORE = "outboxstore"
"""Extension of an internal message: the store that has the marker. Several may share a topic."""

_ID = "cloudevent.id"
_PROJECTION = "outbox.projection"
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_UPSERT = "upsert"


@final
class OutboxWriter:
    """Announces the events of one store's transactions. `listens` says whether the relay hears of them."""

    def __init__(
        self,
        settings: OutboxSettings,
        brokers: Brokers,
        publishing: Publishing,
        rng: random.Random,
        listens: Callable[[], Awaitable[bool]],
    ) -> None:
        self._settings = settings
        self._brokers = brokers
        self._publishing = publishing
        self._rng = rng
        self._listens = listens

    async def announce(
        self,
        asked: Sequence[runtime.TransactionalStateOperation],
        operations: Sequence[StateOperation],
        headers: HeaderBlock | None,
        call: Call,
    ) -> Announced:
        """Publish the internal messages. Raises what the reference answers where one cannot be published;
        nothing is committed then.
        """
        projections = _projections(asked)
        kept: list[StateOperation] = []
        markers: list[str] = []
        for one, operation in zip(asked, operations, strict=True):
            item = one.request if one.request is not None else common.StateItem()
            if one.operation_type == _UPSERT and _is_projection(item):
                continue
            kept.append(operation)
            if one.operation_type == _UPSERT:
                marker = f"outbox-{fresh_id(self._rng)}"
                await self._publish(marker, projections.get(item.key, item), headers, call)
                markers.append(marker)
        return Announced([*kept, *map(marker_write, markers)], markers)

    async def committed(self, store: StateStore, announced: Announced) -> bool:
        """Whether the transaction went through although it seems to have failed: its answer may have been
        lost, or a retry found the markers of the attempt before it in its way.

        If it did not, it never will: tombstones take the markers' places. So the relay need not wait for it.
        """
        buried = False
        for marker in announced.markers:
            if not await bury(store, marker) and not buried:
                return await look(store, marker) is not Mark.BURIED
            buried = True
        return False

    async def _publish(
        self, marker: str, item: common.StateItem, headers: HeaderBlock | None, call: Call
    ) -> None:
        settings = self._settings
        broker = self._brokers.find(settings.internal_pubsub)
        origin = evolve(
            self._publishing.origin(settings.internal_pubsub, settings.internal_topic, headers), id=marker
        )
        overrides = {
            name: value for name, value in item.metadata.items() if name.lower().startswith("cloudevent.")
        }
        try:
            if not await self._listens():
                topic = f"topic {settings.internal_topic} of pubsub {settings.internal_pubsub}"
                raise ComponentUnavailable(f"the outbox could not subscribe to {topic} yet")
            extensions: dict[str, object] = {STORE: settings.store}
            if overrides:
                extensions[OVERRIDES] = overrides
            # A daprd that relays it publishes it as it is: so the overrides are in effect here, too, all but
            # the id, which is the marker's. An event that has an id of its own goes into the one with that.
            given = {name: value for name, value in overrides.items() if name.lower() != _ID}
            kind = content_type_of(item)
            event = wrap(item.value, kind, given, origin, extensions=extensions, enclosed=True)
            await self._publishing.send(broker, PublishRequest(settings.internal_topic, event), call)
        except (MeshError, ValueError) as error:
            message = f"error while publishing outbox message: {error}"
            details = {"appID": self._brokers.app_id, "error": str(error)}
            name = settings.internal_pubsub
            raise pubsub_error(Status.INTERNAL, "OUTBOX", message, name, details) from error


def content_type_of(item: common.StateItem) -> str:
    """`datacontenttype` or `contentType` of the item's metadata, in any case."""
    folded = {name.lower(): value for name, value in item.metadata.items()}
    return folded.get("datacontenttype", "") or folded.get("contenttype", "")


def _projections(asked: Iterable[runtime.TransactionalStateOperation]) -> Mapping[str, common.StateItem]:
    """By key, what is published in place of what is saved. Raises `InvalidArgument` for one whose key is
    not saved in the transaction.
    """
    upserts = [one.request for one in asked if one.operation_type == _UPSERT and one.request is not None]
    projections = {item.key: item for item in upserts if _is_projection(item)}
    saved = {item.key for item in upserts if not _is_projection(item)}
    for key in projections.keys() - saved:
        raise InvalidArgument(
            f"outbox projection for key {key}: no operation of the transaction saves that key"
        )
    return projections


def _is_projection(item: common.StateItem) -> bool:
    return item.metadata.get(_PROJECTION, "").strip().lower() in _TRUE
