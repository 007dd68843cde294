"""Drivers of this repository, served by `meshnode.pluggable` in another process: the conformance suites
through the socket.
"""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from support.components import open_component, python_component, socket_folder
from support.redis_servers import redis_server

from meshnode.errors import ComponentUnavailable, Status
from meshnode.interfaces import BindingRequest, GetRequest, PubSubFeature, SetRequest
from meshnode.testing.conformance import bindings, pubsub, secretstores, state

SECRETS = {"database": {"database": "ann"}, "token": {"token": "opensesame"}}
FEATURES = frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB})
BROKER = pubsub.Promises(
    features=FEATURES, keeps_order=True, order_key=True, keeps_content_type=True, keeps_metadata=True
)
SERVED = (
    "meshnode_state_in_memory:driver",
    "support.served_drivers:broker",
    "support.served_drivers:binding",
    "meshnode_secretstores_local:file_driver",
)


@pytest.fixture(scope="module")
def folder():
    with socket_folder() as path, python_component(path, "py", *SERVED):
        yield path


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_state_conformance(check, folder):
    assert await check.run(lambda: open_component(folder, "state.py"))


@pytest.mark.parametrize("check", pubsub.checks_for(BROKER), ids=str)
async def test_pubsub_conformance(check, folder):
    def open_group(group):
        return open_component(folder, "pubsub.py", group, consumerID=group, redeliverInterval="20ms")

    assert await check.run(pubsub.Setup(open_group, BROKER))


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_input_conformance(check, folder):
    loop = check.name  # of its own: what one check leaves behind must not come to another
    async with open_component(folder, "bindings.py", "source", direction="output", loop=loop) as source:

        async def fire(data):
            await source.invoke(BindingRequest("create", data))

        def open_binding():
            return open_component(folder, "bindings.py", loop=loop)

        assert await check.run(bindings.InputSetup(open_binding, fire))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_output_conformance(check, folder):
    example = BindingRequest("echo", b"hello", {"a": "b"})
    assert await check.run(bindings.OutputSetup(lambda: open_component(folder, "bindings.py"), example))


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_secrets_conformance(check, folder, tmp_path):
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({name: next(iter(values.values())) for name, values in SECRETS.items()}))

    def open_store():
        return open_component(folder, "secretstores.py", str(tmp_path), secretsFile=str(file))

    assert await check.run(secretstores.Setup(open_store, SECRETS))


@pytest.mark.redis
async def test_a_driver_over_asyncio(tmp_path):
    with (
        socket_folder() as path,
        redis_server(tmp_path) as server,
        python_component(path, "far", "meshnode_redis.state:driver"),
    ):
        async with open_component(path, "state.far", redisHost=server.address) as store:
            await store.set(SetRequest("k", b"1"))
            assert (await store.get(GetRequest("k"))).data == b"1"
            server.kill()
            with pytest.raises(ComponentUnavailable) as caught:
                await store.get(GetRequest("k"))
            assert caught.value.code is Status.UNAVAILABLE


def test_another_grpc_client_by_reflection_alone(folder):
    """What a daprd does, with none of our code on its side: grpcio asks by v1alpha what is there, takes the
    messages from the descriptors it gets, and calls.
    """
    name = "dapr.proto.components.v1.StateStore"
    with grpc.insecure_channel(f"unix:{folder / 'py.sock'}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        served = {f"dapr.proto.components.v1.{kind}" for kind in ("PubSub", "SecretStore", "InputBinding")}
        assert served | {name} <= set(database.get_services())
        service = DescriptorPool(database).FindServiceByName(name)

        def call(method_name, **fields):
            method = service.methods_by_name[method_name]
            request, reply = map(GetMessageClass, (method.input_type, method.output_type))
            stub = channel.unary_unary(f"/{name}/{method_name}", request.SerializeToString, reply.FromString)
            return stub(request(**fields), metadata=[("x-component-instance", "grpcio")])

        call("Init", metadata={"properties": {}})
        assert "ETAG" in call("Features").features
        call("Set", key="k", value=b"1")
        found = call("Get", key="k")
        assert found.data == b"1"
        call("Set", key="k", value=b"2", etag={"value": found.etag.value})
        with pytest.raises(grpc.RpcError) as caught:
            call("Set", key="k", value=b"3", etag={"value": found.etag.value})
        status = rpc_status.from_call(caught.value)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        (detail,) = status.details
        violation = BadRequest()
        assert detail.Unpack(violation)
        assert [one.field for one in violation.field_violations] == ["etag"]
