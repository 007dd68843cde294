"""What a Configuration allows and denies: APIs, callers, component types; and what has no effect is said."""

from __future__ import annotations

from typing import Any

import pytest
from support.blobs import SERVICE, Blob, blob_service
from trio.testing import MockClock

from meshnode.config.sections import API, AccessControl, APIRule, AppPolicy
from meshnode.errors import ConfigError, NotImplementedHere
from meshnode.security.access import AccessDenied, AccessPolicy, ApiRules
from meshnode.testing.mesh import Mesh
from meshnode.transport import Cardinality, GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google import protobuf

DAPR = "/dapr.proto.runtime.v1.Dapr/"


def configuration(section: str) -> str:
    return f"""
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: settings}}
spec: {{{section}}}
"""


def rule(name: str, version: str = "v1", protocol: str = "grpc") -> APIRule:
    return APIRule(name=name, version=version, protocol=protocol)


def refuses(rules: ApiRules, path: str) -> bool:
    try:
        rules.check(path)
    except NotImplementedHere:
        return True
    return False


@pytest.mark.parametrize(
    ("path", "denied"),
    [
        (DAPR + "SaveState", True),
        (DAPR + "ExecuteStateTransaction", True),
        (DAPR + "QueryStateAlpha1", False),  # another version of the API
        (DAPR + "GetMetadata", False),
        ("/orders.v1.Orders/SaveState", False),  # proxied methods are not the API's
    ],
)
def test_denied_apis(path: str, denied: bool) -> None:
    assert refuses(ApiRules(API(denied=(rule("state"),))), path) is denied


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (DAPR + "InvokeService", True),
        (DAPR + "QueryStateAlpha1", True),
        (DAPR + "GetState", False),
        (DAPR + "AMethodOfTheFuture", False),
        ("/orders.v1.Orders/Place", True),
    ],
)
def test_with_allowed_apis_all_others_are_closed(path: str, allowed: bool) -> None:
    rules = ApiRules(API(allowed=(rule("invoke"), rule("state", "v1alpha1"))))
    assert refuses(rules, path) is not allowed


def test_denying_wins_over_allowing() -> None:
    rules = ApiRules(API(allowed=(rule("state"),), denied=(rule("state"),)))
    assert refuses(rules, DAPR + "GetState")


def test_rules_for_http_close_nothing() -> None:
    rules = ApiRules(
        API(denied=(rule("state", protocol="http"),), allowed=(rule("health", protocol="http"),))
    )
    assert not rules
    assert not refuses(rules, DAPR + "GetState")


def test_a_rule_about_no_api_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r'no API "sate".*did you mean "state"'):
        ApiRules(API(denied=(rule("sate"),)))


def test_every_method_of_the_reference_s_apis_is_known_here() -> None:
    every = [path for path in runtime.DaprBase().__mapping__() if path.startswith(DAPR)]
    names = [
        "invoke",
        "state",
        "publish",
        "bindings",
        "secrets",
        "actors",
        "metadata",
        "configuration",
        "lock",
    ]
    names += [
        "unlock",
        "subtlecrypto",
        "crypto",
        "workflows",
        "jobs",
        "shutdown",
        "subscribe",
        "conversation",
    ]
    versions = ("v1", "v1alpha1", "v1alpha2", "v1beta1")
    closed = ApiRules(API(denied=tuple(rule(name, version) for name in names for version in versions)))
    left = {path.removeprefix(DAPR) for path in every if not refuses(closed, path)}
    # What the descriptors have beyond the APIs that rules can name.
    assert not {name for name in left if not any(word in name for word in NEWER)}


NEWER = ("Index", "Document", "Search", "Collection", "Vector", "BinaryFile")


@pytest.mark.parametrize(
    ("spec", "allows"),
    [
        (None, True),
        (AccessControl(), True),
        (AccessControl(default_action="allow"), True),
        (AccessControl(default_action="deny"), False),
        (AccessControl(trust_domain="public"), True),
        (AccessControl(policies=(AppPolicy(app_id="caller", default_action="allow"),)), False),
        (
            AccessControl(
                default_action="allow", policies=(AppPolicy(app_id="caller", default_action="deny"),)
            ),
            True,
        ),
    ],
)
def test_callers_without_identity_meet_the_default_action(spec: AccessControl | None, allows: bool) -> None:
    policy = AccessPolicy.of(spec)
    if allows:
        policy.check("orders")
    else:
        with pytest.raises(AccessDenied, match="denied access to appid:  operation: orders verb: NONE"):
            policy.check("orders")


class Echo(runtime.AppCallbackBase):
    async def on_invoke(self, message: common.InvokeRequest) -> common.InvokeResponse:
        return common.InvokeResponse(data=message.data)


async def test_a_node_that_denies_is_reached_by_nobody(mesh: Mesh, autojump_clock: MockClock) -> None:
    async def serve(stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    app = [Echo(), blob_service(unary=serve)]
    await mesh.start("callee", app=app, resources=configuration("accessControl: {defaultAction: deny}"))
    caller = await mesh.start("caller")
    message = common.InvokeRequest(method="orders", data=protobuf.Any(value=b"x"))
    with pytest.raises(GRPCError, match="access control policy has denied access") as caught:
        await caller.dapr.invoke_service(runtime.InvokeServiceRequest(id="callee", message=message))
    assert caught.value.status is Status.INTERNAL
    with pytest.raises(GRPCError, match="access control policy has denied access") as proxied:
        request = caller.channel.request(
            SERVICE + "Unary", Cardinality.UNARY_UNARY, Blob, Blob, metadata={"dapr-app-id": "callee"}
        )
        async with request as stream:
            await stream.send_message(Blob(b""), end=True)
            await stream.recv_message()
    assert proxied.value.status is Status.PERMISSION_DENIED


async def test_a_denied_api_is_unimplemented_and_the_others_work(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    section = "api: {denied: [{name: state, version: v1, protocol: grpc}]}"
    node = await mesh.start("app", resources=configuration(section))
    with pytest.raises(GRPCError, match="Not Implemented") as caught:
        await node.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="k"))
    assert caught.value.status is Status.UNIMPLEMENTED
    assert (await node.dapr.get_metadata(runtime.GetMetadataRequest())).id == "app"


async def test_a_denied_component_type_is_left_out_and_said(mesh: Mesh, autojump_clock: MockClock) -> None:
    stores = """
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: secret-store}
spec: {type: secretstores.local.env, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: memory}
spec: {type: state.in-memory, version: v1}
"""
    section = configuration("components: {deny: [state.in-memory/v1]}")
    node = await mesh.start("app", resources=section + stores)
    listed = (await node.dapr.get_metadata(runtime.GetMetadataRequest())).registered_components
    assert [one.name for one in listed] == ["secret-store"]
    assert any("memory is left out" in note for note in node.node.started.notes)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("tracing: {samplingRate: '1', zipkin: {endpointAddress: 'http://zipkin'}}", "no spans are exported"),
        ("mtls: {enabled: true}", "calls to other nodes go in the clear"),
        ("httpPipeline: {handlers: [{name: x, type: y}]}", "httpPipeline: has no effect"),
        ("features: [{name: Fast, enabled: true}]", "no feature Fast"),
        ("accessControl: {defaultAction: allow, policies: [{appId: a}]}", "callers have no identity"),
    ],
)
async def test_what_has_no_effect_is_said(
    section: str, said: str, mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=configuration(section))
    assert [note for note in node.node.started.notes if said in note]


async def test_a_plain_node_has_nothing_to_say(mesh: Mesh, autojump_clock: MockClock) -> None:
    settings = configuration("tracing: {samplingRate: '1'}, mtls: {enabled: false}")
    node = await mesh.start("app", resources=settings)
    assert node.node.started.notes == ()
