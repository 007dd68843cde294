"""The store: reading keys, and watching them from a revision on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import trio

from meshnode.errors import ComponentError
from meshnode.interfaces import ConfigurationItem, DriverContext, Notify
from meshnode_etcd._client import Client
from meshnode_etcd.configuration._handoff import Handoff
from meshnode_etcd.configuration._progress import Progress, Span, item, spans
from meshnode_etcd.wire.etcdserverpb import KeyValue, RangeRequest, RequestOp, TxnRequest

__all__ = ["EtcdConfiguration"]

_AT_ONCE = 100
"""Keys that are read in one transaction: servers take 128 unless they are told otherwise."""
_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


@final
class EtcdConfiguration:
    """A `ConfigurationStore` on etcd."""

    def __init__(self, client: Client, context: DriverContext) -> None:
        self._client = client
        self._context = context

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        found: dict[str, ConfigurationItem] = {}
        for kvs, _ in await self._read(spans(self._client.keys, keys)):
            for kv in kvs:
                name = self._client.keys.name(kv.key)
                if name is not None:
                    found[name] = item(kv)
        return found

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        progress = Progress(self._client.keys, spans(self._client.keys, keys))
        progress.read(await self._read(progress.spans))
        task_status.started()  # what changes from here on is in the history that the stream begins with
        pause = _PAUSE
        while not stop.is_set():
            begun = trio.current_time()
            trouble = await self._follow(progress, notify, stop)
            if progress.compacted and not stop.is_set():
                trouble = await self._catch_up(progress, notify)
            if trouble is None:
                continue
            self._context.log.warning("the subscription goes on after %s", trouble)
            if trio.current_time() - begun > _LONGEST_PAUSE:
                pause = _PAUSE
            with trio.move_on_after(pause * self._context.rng.uniform(0.5, 1.0)):
                await stop.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def ping(self) -> None:
        await self._client.ping()

    async def _follow(self, progress: Progress, notify: Notify, stop: trio.Event) -> ComponentError | None:
        """One stream, until it ends; why, if it is not for a history that was compacted."""
        handoff = Handoff()
        troubles: list[ComponentError] = []

        async def listen() -> None:
            trouble = await self._client.listen(progress.requests(), handoff.put)
            if trouble is not None:
                troubles.append(trouble)
            handoff.end()

        async def end_at_stop() -> None:
            await stop.wait()
            handoff.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(end_at_stop)
            while (response := await handoff.take()) is not None:
                for changes in progress.take(response):
                    if stop.is_set():
                        break
                    await notify(changes)
            nursery.cancel_scope.cancel()
        return troubles[0] if troubles else None

    async def _catch_up(self, progress: Progress, notify: Notify) -> ComponentError | None:
        """The history is gone: what differs is told. What went wrong with reading leaves that for later."""
        try:
            found = await self._read(progress.spans)
        except ComponentError as error:
            return error
        changes = progress.read(found)
        if changes:
            await notify(changes)
        return None

    async def _read(self, watched: Sequence[Span]) -> list[tuple[Sequence[KeyValue], int]]:
        """What each holds, and the revision in which it does."""
        found: list[tuple[Sequence[KeyValue], int]] = []
        for start in range(0, len(watched), _AT_ONCE):
            ranges = [
                RequestOp(request_range=RangeRequest(key=span.key, range_end=span.end))
                for span in watched[start : start + _AT_ONCE]
            ]
            answer = await self._client.transact(TxnRequest(success=ranges), repeatable=True)
            revision = answer.header.revision if answer.header is not None else 0
            for response in answer.responses:
                one = response.response_range
                found.append((one.kvs if one is not None else [], revision))
        return found
