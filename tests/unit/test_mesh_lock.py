"""Locks through real nodes, in the in-process mesh on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from google.rpc import error_details_pb2, status_pb2
from trio.testing import MockClock

from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import Driver, DriverContext, UnlockOutcome
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime

HELD = runtime.UnlockResponseStatus
TOKEN = "meshnode-fencing-token"


@frozen
class Options:
    pass


class Locks:
    """All locks of a mesh, in the test's hand. Expiry is by the mesh's clock."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, float]] = {}
        self.tokens = 0
        self.failures = 0
        self.calls = 0

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        self.check()
        if self.holder(resource) is not None:
            return None
        self.held[resource] = owner, trio.current_time() + seconds
        self.tokens += 1
        return self.tokens

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        self.check()
        holder = self.holder(resource)
        if holder is None:
            return UnlockOutcome.LOCK_DOES_NOT_EXIST
        if holder != owner:
            return UnlockOutcome.LOCK_BELONGS_TO_OTHERS
        del self.held[resource]
        return UnlockOutcome.SUCCESS

    async def ping(self) -> None: ...

    def holder(self, resource: str) -> str | None:
        owner, ends = self.held.get(resource, ("", 0.0))
        return owner if trio.current_time() < ends else None

    def check(self) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise ComponentUnavailable("the backend is away")

    @property
    def driver(self) -> Driver[Any]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Locks]:
            yield self

        return Driver("lock.test", Options, opened)


@pytest.fixture
def locks() -> Locks:
    return Locks()


@pytest.fixture
async def mesh(locks: Locks) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([locks.driver])) as mesh:
        yield mesh


def store(name: str = "lockstore", metadata: str = "") -> str:
    return f"""
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: lock.test, version: v1, metadata: [{metadata}]}}
"""


RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries:
      three: {policy: constant, duration: 1s, maxRetries: 3}
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 2}
  targets:
    components:
      lockstore: {outbound: {%s}}
"""


def asked(**fields: Any) -> runtime.TryLockRequest:
    given = {"store_name": "lockstore", "resource_id": "r", "lock_owner": "me", "expiry_in_seconds": 10}
    return runtime.TryLockRequest(**{**given, **fields})


async def try_lock(node: MeshNode, **fields: Any) -> bool:
    return (await node.dapr.try_lock_alpha_1(asked(**fields))).success


async def unlock(node: MeshNode, **fields: Any) -> runtime.UnlockResponseStatus:
    given = {"store_name": "lockstore", "resource_id": "r", "lock_owner": "me"}
    return (await node.dapr.unlock_alpha_1(runtime.UnlockRequest(**{**given, **fields}))).status


async def refused(call: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value


async def test_a_lock_is_held_by_one_until_it_is_released(
    mesh: Mesh, locks: Locks, autojump_clock: MockClock
) -> None:
    one = await mesh.start("app", resources=store())
    assert await try_lock(one)
    assert list(locks.held) == ["lock||app||r"]
    assert not await try_lock(one, lock_owner="you")
    assert not await try_lock(one)
    assert await unlock(one, lock_owner="you") is HELD.LOCK_BELONGS_TO_OTHERS
    assert await unlock(one) is HELD.SUCCESS
    assert await unlock(one) is HELD.LOCK_DOES_NOT_EXIST
    assert await try_lock(one, lock_owner="you")


async def test_a_lock_is_over_when_its_time_is(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=store())
    assert await try_lock(node, expiry_in_seconds=10)
    await trio.sleep(9)
    assert not await try_lock(node, lock_owner="you")
    await trio.sleep(2)
    assert await unlock(node) is HELD.LOCK_DOES_NOT_EXIST
    assert await try_lock(node, lock_owner="you")


async def test_the_token_is_in_the_metadata_of_a_lock_that_was_taken(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=store())
    path = "/dapr.proto.runtime.v1.Dapr/TryLockAlpha1"
    handler = runtime.DaprBase().__mapping__()[path]
    seen = []
    for owner, resource in (("one", "a"), ("two", "a"), ("one", "b")):
        async with node.channel.request(
            path, handler.cardinality, handler.request_type, handler.reply_type
        ) as stream:
            await stream.send_message(asked(lock_owner=owner, resource_id=resource), end=True)
            await stream.recv_initial_metadata()
            answer = await stream.recv_message()
            assert stream.initial_metadata is not None
            seen.append((answer.success, stream.initial_metadata.get(TOKEN)))
    assert seen == [(True, "1"), (False, None), (True, "2")]


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("", "lock||app||r"),
        ("AppID", "lock||app||r"),
        ("name", "lock||lockstore||r"),
        ("none", "lock||r"),
        ("Mine", "lock||mine||r"),
        ("namespace", "lock||namespace||r"),
    ],
)
async def test_the_prefix(mesh: Mesh, locks: Locks, autojump_clock: MockClock, prefix: str, key: str) -> None:
    node = await mesh.start("app", resources=store(metadata=f"{{name: keyPrefix, value: '{prefix}'}}"))
    assert await try_lock(node)
    assert list(locks.held) == [key]
    assert await unlock(node) is HELD.SUCCESS


async def test_a_prefix_that_cannot_be(mesh: Mesh, autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigError, match="input key/keyPrefix"):
        await mesh.start("app", resources=store(metadata="{name: keyPrefix, value: 'a||b'}"))


@pytest.mark.parametrize(
    ("fields", "status", "reason", "words"),
    [
        (
            {"store_name": "ghost"},
            Status.INVALID_ARGUMENT,
            "ERR_LOCK_STORE_NOT_FOUND",
            "lock store ghost not found",
        ),
        ({"resource_id": ""}, Status.INVALID_ARGUMENT, "ERR_MALFORMED_REQUEST", "ResourceId is empty"),
        ({"lock_owner": ""}, Status.INVALID_ARGUMENT, "ERR_MALFORMED_REQUEST", "LockOwner is empty"),
        ({"resource_id": "a||b"}, Status.INTERNAL, "*", "can't contain '||'"),
    ],
)
async def test_requests_that_cannot_be_right(
    mesh: Mesh, locks: Locks, autojump_clock: MockClock,
    fields: dict[str, str], status: Status, reason: str, words: str,
) -> None:  # fmt: skip
    node = await mesh.start("app", resources=store())
    for call, failed in ((try_lock, "ERR_TRY_LOCK"), (unlock, "ERR_UNLOCK")):
        error = await refused(call(node, **fields))
        assert error.status is status
        assert words in (error.message or "")
        info, about = details(error)
        assert (info.reason, info.domain) == (failed if reason == "*" else reason, "dapr.io")
        if reason == "ERR_LOCK_STORE_NOT_FOUND":
            assert about is None
        else:
            expected = fields.get("lock_owner", "me")
            assert (about.resource_type, about.resource_name, about.owner) == ("lock", "lockstore", expected)
    assert not locks.calls


@pytest.mark.parametrize("seconds", [0, -1])
async def test_an_expiry_that_is_none(mesh: Mesh, autojump_clock: MockClock, seconds: int) -> None:
    node = await mesh.start("app", resources=store())
    error = await refused(try_lock(node, store_name="ghost", expiry_in_seconds=seconds))
    assert (error.status, error.message) == (
        Status.INVALID_ARGUMENT,
        "ExpiryInSeconds is not positive in lock store ghost",
    )
    assert details(error)[0].reason == "ERR_MALFORMED_REQUEST"


async def test_no_lock_store_at_all(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    for call in (try_lock, unlock):
        error = await refused(call(node))
        assert (error.status, error.message) == (
            Status.FAILED_PRECONDITION,
            "lock store is not configured",
        )
        assert details(error)[0].reason == "ERR_LOCK_STORE_NOT_CONFIGURED"


async def test_the_outbound_policy_holds(mesh: Mesh, locks: Locks, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=store() + RESILIENCY % "retry: three")
    locks.failures = 2
    assert await try_lock(node)
    assert locks.calls == 3
    locks.failures = 4
    error = await refused(unlock(node))
    assert (error.status, error.message) == (
        Status.INTERNAL,
        "failed to release lock: the backend is away",
    )
    assert details(error)[0].reason == "ERR_UNLOCK"


async def test_an_open_breaker(mesh: Mesh, locks: Locks, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=store() + RESILIENCY % "circuitBreaker: simple")
    locks.failures = 2
    for _ in range(2):
        error = await refused(try_lock(node))
        assert error.status is Status.INTERNAL
        assert details(error)[0].reason == "ERR_TRY_LOCK"
    error = await refused(try_lock(node))
    assert (error.status, error.message) == (Status.UNKNOWN, "circuit breaker is open")


def details(error: GRPCError) -> tuple[Any, Any]:
    """ErrorInfo, and ResourceInfo if there is one."""
    info, about = error_details_pb2.ErrorInfo(), error_details_pb2.ResourceInfo()
    found: list[Any] = [None, None]
    for one in packed(error):
        for place, message in enumerate((info, about)):
            if one.Is(message.DESCRIPTOR):
                one.Unpack(message)
                found[place] = message
    return found[0], found[1]


def packed(error: GRPCError) -> list[Any]:
    if isinstance(error.details, bytes):
        return list(status_pb2.Status.FromString(error.details).details)
    return list(error.details or [])
