"""The resolver: one question per lookup, and the task that keeps the own registration alive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import DriverContext, Instance, lone_error
from meshnode_nameresolution_consul._agent import Agent, Forgotten
from meshnode_nameresolution_consul._options import ConsulOptions
from meshnode_nameresolution_consul._registration import BEAT, Registration, addresses, registration
from meshnode_nameresolution_consul._watches import Watches

__all__ = ["ConsulResolver"]

_RETRY: Final = 0.5
"""Seconds until a sign of life that failed is given again."""
_FAREWELL: Final = 2.0
"""Seconds that leaving may take; after that the agent finds out by itself."""


@final
class ConsulResolver:
    """Fulfils `NameResolver`."""

    max_age: Final = 1.0

    def __init__(
        self, options: ConsulOptions, context: DriverContext, agent: Agent, watches: Watches | None
    ) -> None:
        self._options = options
        self._context = context
        self._agent = agent
        self._watches = watches

    async def resolve(self, app_id: str, namespace: str) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        entries = self._watches.find(app_id) if self._watches is not None else None
        if entries is None:
            entries = await self._agent.healthy(app_id)
        return addresses(entries, app_id, namespace, self._options.dapr_port_meta_key)

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        """Does nothing where others register the nodes."""
        if not self._options.registers:
            yield
            return
        wanted = registration(self._options, instance, self._context.env.get("APP_PORT", ""))
        try:
            await self._register(wanted)
            self._context.log.info("service:%s registered on consul agent", wanted.body["Name"])
            with lone_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_registered, wanted)
                    yield
                    nursery.cancel_scope.cancel()
        finally:
            await self._leave(wanted)

    async def _register(self, own: Registration) -> None:
        await self._agent.register(own.body)
        if own.check:  # it may have failed under this name before, which the agent remembers
            await self._agent.passing(own.check)

    async def _keep_registered(self, own: Registration) -> None:
        away = False
        while True:
            await trio.sleep(_RETRY if away else BEAT)
            try:
                await self._beat(own)
            except ComponentError as error:
                if not away:
                    self._context.log.warning("no sign of life could be given: %s", error)
                away = True
            else:
                if away:
                    self._context.log.info("signs of life are given again")
                away = False

    async def _beat(self, own: Registration) -> None:
        """What the agent has forgotten, with its data or after a long silence, it is told again."""
        with trio.move_on_after(BEAT):
            try:
                await (self._agent.passing(own.check) if own.check else self._agent.look_for(own.id))
            except Forgotten:
                self._context.log.warning("service:%s was gone and is registered again", own.body["Name"])
                await self._register(own)
            return
        raise ComponentUnavailable("consul does not answer")

    async def _leave(self, own: Registration) -> None:
        """With Dapr's default the service stays registered; its check then says that it does not serve."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL) as scope:
            try:
                if self._options.self_deregister:
                    await self._agent.deregister(own.id)
                elif own.check:
                    await self._agent.failing(own.check, "the node has left")
            except Forgotten:
                pass
            except ComponentError as error:
                self._context.log.warning("consul could not be told that the node leaves: %s", error)
        if scope.cancelled_caught:
            self._context.log.warning("consul could not be told in %g s that the node leaves", _FAREWELL)
