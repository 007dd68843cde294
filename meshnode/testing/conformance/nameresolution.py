"""The conformance suite of name resolvers.

A check is an object with a name; call it with a function that opens the resolver. Under pytest:

    import pytest
    from meshnode.testing.conformance import nameresolution

    @pytest.mark.parametrize("check", nameresolution.CHECKS, ids=str)
    async def test_conformance(check, open_resolver):
        await check.run(open_resolver)

`open_resolver` takes nothing and returns an async context manager that yields a resolver, for instance
`lambda: driver.open(options, context)`. Resolvers opened at the same time must see each other: they stand for
different nodes of one mesh, and the checks open several. App ids and addresses differ from check to check and
run to run.

A resolver may take a moment to notice what changed elsewhere: the checks ask again until `patience` seconds
(real ones) have passed. `STATIC_CHECKS` are those that also hold for a resolver whose announcements do
nothing, such as a static list.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, final

import trio
from attrs import field, frozen

from meshnode.interfaces import Instance, NameResolver
from meshnode.testing.conformance._check import RUN, ConformanceError, expect

__all__ = ["CHECKS", "STATIC_CHECKS", "ConformanceError", "OpenResolver", "ResolverCheck"]

OpenResolver = Callable[[], AbstractAsyncContextManager[NameResolver]]

_ports: Final = itertools.count(20_000)


@final
@frozen
class Probe:
    """What a check works with: resolvers to open, names and addresses nobody else uses."""

    open_resolver: OpenResolver
    patience: float
    names: itertools.count[int] = field(factory=lambda: itertools.count())

    def instance(self, app_id: str, namespace: str = "default") -> Instance:
        return Instance(app_id, f"127.0.0.1:{next(_ports)}", namespace)

    def app_id(self) -> str:
        return f"conformance-{RUN}-{id(self) % 9973}-{next(self.names)}"

    async def expect(
        self,
        resolver: NameResolver,
        app_id: str,
        addresses: Sequence[str],
        why: str,
        namespace: str = "default",
    ) -> None:
        """The resolver comes to give exactly these addresses, in any order."""
        found: Sequence[str] = ()
        with trio.move_on_after(self.patience):
            while True:
                found = await resolver.resolve(app_id, namespace)
                if sorted(found) == sorted(addresses):
                    return
                await trio.sleep(0.02)
        raise ConformanceError(f"{why}: expected {sorted(addresses)}, got {sorted(found)}")


@final
@frozen
class ResolverCheck:
    """One rule a resolver must keep."""

    name: str
    body: Callable[[Probe], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def run(self, open_resolver: OpenResolver, patience: float = 10.0) -> None:
        await self.body(Probe(open_resolver, patience))


async def an_unknown_app_id_has_no_address(probe: Probe) -> None:
    async with probe.open_resolver() as resolver:
        expect(
            list(await resolver.resolve(probe.app_id(), "default")) == [],
            "an unknown app id must give nothing",
        )


async def max_age_is_a_duration(probe: Probe) -> None:
    async with probe.open_resolver() as resolver:
        expect(resolver.max_age >= 0, "max_age must be 0 or more (and may be inf)")


async def it_fulfils_the_protocol(probe: Probe) -> None:
    async with probe.open_resolver() as resolver:
        expect(isinstance(resolver, NameResolver), "it must have announce, resolve and max_age")


async def errors_inside_announce_come_out_bare(probe: Probe) -> None:
    error = LookupError("of the body")
    try:
        async with probe.open_resolver() as resolver, resolver.announce(probe.instance(probe.app_id())):
            raise error
    except LookupError as caught:
        expect(caught is error, "an error of the body must come out as it is")
    except BaseExceptionGroup as group:
        raise ConformanceError("an error of the body came out in a group") from group


async def an_announced_instance_is_found_by_itself_and_others(probe: Probe) -> None:
    async with probe.open_resolver() as here, probe.open_resolver() as there:
        mine = probe.instance(probe.app_id())
        async with here.announce(mine):
            await probe.expect(here, mine.app_id, [mine.address], "a node finds itself")
            await probe.expect(there, mine.app_id, [mine.address], "another node finds it")


async def a_clean_end_takes_it_out(probe: Probe) -> None:
    async with probe.open_resolver() as here, probe.open_resolver() as there:
        mine = probe.instance(probe.app_id())
        async with here.announce(mine):
            await probe.expect(there, mine.app_id, [mine.address], "announced")
        await probe.expect(here, mine.app_id, [], "after a clean end it is gone")
        await probe.expect(there, mine.app_id, [], "after a clean end it is gone for others")


async def a_cancelled_end_takes_it_out_too(probe: Probe) -> None:
    async with probe.open_resolver() as here, probe.open_resolver() as there:
        mine = probe.instance(probe.app_id())
        with trio.CancelScope() as scope:
            async with here.announce(mine):
                await probe.expect(there, mine.app_id, [mine.address], "announced")
                scope.cancel()
                await trio.sleep_forever()
        await probe.expect(there, mine.app_id, [], "after a cancellation it is gone")


async def all_instances_of_an_app_id_are_given(probe: Probe) -> None:
    app_id = probe.app_id()
    instances = [probe.instance(app_id) for _ in range(3)]
    async with AsyncExitStack() as stack:
        for instance in instances:
            resolver = await stack.enter_async_context(probe.open_resolver())
            await stack.enter_async_context(resolver.announce(instance))
        asker = await stack.enter_async_context(probe.open_resolver())
        await probe.expect(asker, app_id, [instance.address for instance in instances], "all three are given")


async def app_ids_are_apart(probe: Probe) -> None:
    async with probe.open_resolver() as one, probe.open_resolver() as two:
        first, second = probe.instance(probe.app_id()), probe.instance(probe.app_id())
        async with one.announce(first), two.announce(second):
            await probe.expect(one, second.app_id, [second.address], "the second app id")
            await probe.expect(two, first.app_id, [first.address], "the first app id")


async def an_instance_that_starts_late_is_found(probe: Probe) -> None:
    async with probe.open_resolver() as here, probe.open_resolver() as there:
        mine = probe.instance(probe.app_id())
        await probe.expect(there, mine.app_id, [], "nobody yet")
        async with here.announce(mine):
            await probe.expect(
                there, mine.app_id, [mine.address], "found though it was looked for before it was there"
            )


async def an_address_can_be_announced_again(probe: Probe) -> None:
    async with probe.open_resolver() as here:
        mine = probe.instance(probe.app_id())
        for _ in range(2):
            async with here.announce(mine):
                await probe.expect(here, mine.app_id, [mine.address], "announced")


async def cancelling_a_lookup_leaves_the_resolver_usable(probe: Probe) -> None:
    async with probe.open_resolver() as here:
        mine = probe.instance(probe.app_id())
        async with here.announce(mine):
            with trio.CancelScope() as scope:
                scope.cancel()
                await here.resolve(mine.app_id, "default")
            await probe.expect(here, mine.app_id, [mine.address], "after a cancelled lookup")


async def lookups_may_run_side_by_side(probe: Probe) -> None:
    async with probe.open_resolver() as here:
        mine = probe.instance(probe.app_id())
        async with here.announce(mine):
            await probe.expect(here, mine.app_id, [mine.address], "announced")
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(probe.expect, here, mine.app_id, [mine.address], "side by side")


def _named(*bodies: Callable[[Probe], Awaitable[None]]) -> tuple[ResolverCheck, ...]:
    return tuple(ResolverCheck(body.__name__, body) for body in bodies)


STATIC_CHECKS: Final = _named(
    an_unknown_app_id_has_no_address,
    max_age_is_a_duration,
    it_fulfils_the_protocol,
    errors_inside_announce_come_out_bare,
)
CHECKS: Final = STATIC_CHECKS + _named(
    an_announced_instance_is_found_by_itself_and_others,
    a_clean_end_takes_it_out,
    a_cancelled_end_takes_it_out_too,
    all_instances_of_an_app_id_are_given,
    app_ids_are_apart,
    an_instance_that_starts_late_is_found,
    an_address_can_be_announced_again,
    cancelling_a_lookup_leaves_the_resolver_usable,
    lookups_may_run_side_by_side,
)
