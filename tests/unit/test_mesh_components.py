"""Components inside a node: opening them, their secrets, and calls on a store under resiliency."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.mesh_stores import Flaky, flaky_component
from trio.testing import MockClock

from meshnode.errors import ComponentUnavailable, ConfigError, Problem
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

SECRETS = """---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: secrets}
spec: {type: secretstores.local.env, version: v1}
"""

RESILIENCY = """---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {short: 2s}
    retries: {three: {policy: constant, duration: 1s, maxRetries: 3}}
  targets:
    components:
      statestore: {outbound: {%s}}
"""


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


@pytest.fixture
async def mesh(flaky: Flaky) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([flaky.driver])) as opened:
        yield opened


async def save(node: MeshNode, **options: Any) -> None:
    item = common.StateItem(key="k", value=b"v")
    await node.dapr.save_state(runtime.SaveStateRequest(store_name="statestore", states=[item]), **options)


async def get(node: MeshNode, **options: Any) -> bytes:
    request = runtime.GetStateRequest(store_name="statestore", key="k")
    return (await node.dapr.get_state(request, **options)).data


# --- opening


async def test_a_component_that_cannot_be_opened_keeps_the_node_from_starting(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.opening = ComponentUnavailable("connection refused")
    words = r"error initializing component statestore \(state.flaky/v1\): connection refused"
    with pytest.raises(ComponentUnavailable, match=words):
        await mesh.start("app", resources=flaky_component())
    assert flaky.opens == 4  # Dapr's built-in retries of the initialisation: three


async def test_a_component_that_comes_up_late_is_waited_for(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.opening = ComponentUnavailable("not yet")

    async def mend() -> None:
        await trio.sleep(1)
        flaky.opening = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mend)
        node = await mesh.start("app", resources=flaky_component())
    await save(node)
    assert 1 < flaky.opens <= 4


async def test_ignore_errors_lets_the_node_start_without_the_component(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.opening = RuntimeError("a bug in the driver")
    node = await mesh.start("app", resources=flaky_component("ignoreErrors: true"))
    with pytest.raises(GRPCError) as caught:
        await save(node)
    assert caught.value.status is Status.FAILED_PRECONDITION
    assert any("going on without it, as ignoreErrors asks" in event.message for event in mesh.history)


async def test_an_opening_that_takes_too_long_is_given_up(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.opening = 30.0
    with pytest.raises(ComponentUnavailable, match="init timeout for component statestore exceeded after 3s"):
        await mesh.start("app", resources=flaky_component("initTimeout: 3s"))
    flaky.opening = 30.0
    node = await mesh.start("slow", resources=flaky_component("initTimeout: 1m"))
    await save(node)


async def test_a_mistake_only_the_driver_can_see_is_a_mistake_in_the_resources(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.opening = ConfigError([Problem("the size must be even", "app.yaml", 9)])
    with pytest.raises(ConfigError, match=r"app\.yaml:9: the size must be even"):
        await mesh.start("app", resources=flaky_component())
    assert flaky.opens == 1


async def test_components_live_as_long_as_the_node(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    two = flaky_component(name="one") + flaky_component(name="two")
    node = await mesh.start("app", resources=two)
    await trio.sleep(3600)
    assert flaky.closed == 0
    await node.stop()
    assert flaky.closed == 2
    other = await mesh.start("other", resources=two)
    await other.kill()
    assert flaky.closed == 4


async def test_components_scoped_to_others_leave_no_store_at_all(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    scoped = flaky_component().rstrip() + "\nscopes: [somebody-else]\n"
    node = await mesh.start("app", resources=scoped)
    with pytest.raises(GRPCError) as caught:
        await get(node)
    assert caught.value.status is Status.FAILED_PRECONDITION
    assert flaky.opens == 0


# --- secrets


async def test_values_come_from_secrets_and_the_environment(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    metadata = (
        "[{name: PassWord, secretKeyRef: {name: STORE_PASSWORD, key: STORE_PASSWORD}},"
        " {name: size, envRef: STORE_SIZE}]"
    )
    resources = flaky_component(metadata=metadata) + "auth: {secretStore: secrets}\n" + SECRETS
    env = {"STORE_PASSWORD": "hunter2", "STORE_SIZE": "42"}
    await mesh.start("app", resources=resources, options={"env": env})
    [options] = flaky.opened
    assert (options.password, options.size) == ("hunter2", 42)
    assert "hunter2" not in repr(options)
    assert not any("hunter2" in event.message for event in mesh.history)


async def test_references_that_lead_nowhere_are_all_reported(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    metadata = (
        "[{name: password, secretKeyRef: {name: NOWHERE, key: NOWHERE}}, {name: size, envRef: NO_SIZE}]"
    )
    one = flaky_component(metadata=metadata, name="one") + "auth: {secretStore: secrets}\n"
    two = flaky_component(metadata="[{name: size, envRef: DAPR_API_TOKEN}]", name="two")
    with pytest.raises(ConfigError) as caught:
        await mesh.start("app", resources=one + two + SECRETS)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    for part in ("NOWHERE", "NO_SIZE is not set", "DAPR_API_TOKEN may not be read"):
        assert part in text
    assert all(problem.file == "app.yaml" and problem.line for problem in caught.value.problems)
    assert flaky.opens == 0


@pytest.mark.parametrize("name", ["primaryEncryptionKey", "PRIMARYENCRYPTIONKEY"])
async def test_a_store_with_an_encryption_key_from_a_secret_holds_no_plain_text(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock, name: str
) -> None:
    metadata = f"[{{name: {name}, secretKeyRef: {{name: KEY, key: KEY}}}}, {{name: keyPrefix, value: none}}]"
    resources = flaky_component(metadata=metadata) + "auth: {secretStore: secrets}\n" + SECRETS
    node = await mesh.start("app", resources=resources, options={"env": {"KEY": "ab" * 32}})
    await save(node)
    [kept] = flaky.written
    assert kept.endswith(b"||KEY")
    assert await get(node) == b"v"


async def test_an_encryption_key_that_stands_in_the_file_is_refused(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    metadata = f"[{{name: primaryEncryptionKey, value: {'ab' * 32}}}]"
    with pytest.raises(ConfigError, match=r"app\.yaml:8: .*must come from a secret") as caught:
        await mesh.start("app", resources=flaky_component(metadata=metadata))
    assert "abab" not in str(caught.value)


# --- calls under resiliency


async def test_a_store_that_fails_and_recovers_is_retried_and_the_log_says_so(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_component() + RESILIENCY % "retry: three")
    flaky.down = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(save, node)
        await trio.sleep(1.5)
        flaky.down = False
    assert len(flaky.calls) == 3
    assert await get(node) == b"v"
    lines = [event.message for event in mesh.history if event.scope == "meshnode.resiliency"]
    assert lines == [
        "Error processing operation component[statestore] output. Retrying in 1s…",
        "Recovered processing operation component[statestore] output after 3 attempts",
    ]


async def test_a_store_that_stays_down_is_given_up_with_its_error(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_component() + RESILIENCY % "retry: three")
    flaky.down = True
    with pytest.raises(GRPCError, match="failed saving state in state store statestore: the store is down"):
        await save(node)
    assert len(flaky.calls) == 4
    flaky.down = False
    await save(node)


async def test_a_store_that_hangs_is_cut_off_attempt_by_attempt(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_component() + RESILIENCY % "timeout: short, retry: three")
    flaky.hanging = True
    with pytest.raises(GRPCError, match="context deadline exceeded") as caught:
        await get(node)
    assert caught.value.status is Status.INTERNAL
    assert flaky.cancelled == 4
    assert [round(at - flaky.calls[0], 3) for at in flaky.calls] == [0, 3, 6, 9]


async def test_a_deadline_cancels_the_driver_s_call(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_component())
    flaky.hanging = True
    began = trio.current_time()
    with pytest.raises(GRPCError) as caught:
        await save(node, timeout=3)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert trio.current_time() - began == pytest.approx(3, abs=0.1)
    await trio.sleep(0.1)
    assert flaky.cancelled == 1


@pytest.mark.parametrize("policy", ["", "timeout: short, retry: three"])
async def test_a_caller_that_goes_away_cancels_the_driver_s_call(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock, policy: str
) -> None:
    resources = flaky_component() + (RESILIENCY % policy if policy else "")
    node = await mesh.start("app", resources=resources)
    flaky.hanging = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(save, node)
        await flaky.started.wait()
        nursery.cancel_scope.cancel()
    await trio.sleep(0.1)
    assert flaky.cancelled == 1
    await trio.sleep(30)
    assert len(flaky.calls) == 1  # and nothing comes after it
    assert len(node.node.live) == 0
