"""Service invocation in a mesh of both sidecars: what a caller sees is the same whichever sidecar is on
either side.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2_grpc, invoke_pb2
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from support.consul_servers import consul_agent
from support.install_consul import find_consul
from support.install_daprd import find_daprd
from support.mesh_apps import SERVICE
from support.mixed_meshes import Member, mesh
from support.processes import wait_until

pytestmark = pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed")

CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: mesh}
spec:
  nameResolution:
    component: %s
    configuration: {%s}
"""
WAYS = list(product(("daprd-1", "node-1"), ("daprd-2", "node-2")))
INFO = [("REFUSED", "test", {"shop": "closed"})]
REFUSES = "the application refuses: 50 % off"
TRACE = "0af7651916cd43dd8448eb211c80319c"
STREAM = ("dapr-stream", "true")  # a daprd wants it of streams; a meshnode takes it away
OVER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""A daprd whose own clock is first resets the stream, which its caller reads as CANCELLED."""
Way = tuple[Member, Member]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Member]]:
    home = tmp_path_factory.mktemp("mesh")
    with mesh(home, CONFIGURATION % ("sqlite", f"connectionString: '{home / 'names.db'}'")) as made:
        yield made


@pytest.fixture(params=WAYS, ids=" to ".join)
def way(members: dict[str, Member], request: pytest.FixtureRequest) -> Way:
    """The caller's side and the callee's."""
    caller, callee = request.param
    members[callee].app.seen.clear()
    return members[caller], members[callee]


def invoke(
    caller: Member, to: str, method: str, data: bytes = b"hello", *, timeout: float = 20, **options: Any
) -> tuple[Any, Any]:
    metadata = options.pop("metadata", ())
    message = common_pb2.InvokeRequest(method=method, data=any_pb2.Any(value=data), **options)
    request = invoke_pb2.InvokeServiceRequest(id=to, message=message)
    stub: Any = dapr_pb2_grpc.DaprStub(caller.channel)  # type: ignore[no-untyped-call]
    answer: tuple[Any, Any] = stub.InvokeService.with_call(request, metadata=metadata, timeout=timeout)
    return answer


def failing(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def infos(error: Any) -> list[tuple[str, str, dict[str, str]]]:
    status = rpc_status.from_call(error)
    found = []
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        assert detail.Unpack(info)
        found.append((info.reason, info.domain, dict(info.metadata)))
    return found


def pairs(metadata: Iterable[Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata if key != "traceparent"}


# --- InvokeService


def test_data_content_type_and_metadata_both_ways(way: Way) -> None:
    caller, callee = way
    sent = [("note", "n1"), ("note", "n2"), ("blob-bin", b"\x00\xfe")]
    sent.append(("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))
    answer, call = invoke(caller, callee.app_id, "echo", metadata=sent, content_type="text/plain")
    assert answer.data == any_pb2.Any(value=b"hello")
    assert answer.content_type == "application/x-answer"
    assert pairs(call.initial_metadata()) == {"seen-note": "n1,n2", "answer-bin": b"\x00\xff"}
    assert pairs(call.trailing_metadata()) == {"after": "all"}
    assert callee.app.content_type == "text/plain"
    seen = dict(callee.app.seen[0])
    assert seen["blob-bin"] == b"\x00\xfe"
    assert str(seen["traceparent"]).split("-")[1] == TRACE
    named = ("dapr-caller-app-id", "dapr-caller-namespace", "dapr-callee-app-id")
    assert [seen[name] for name in named] == [caller.app_id, "default", callee.app_id]
    assert (seen["x-forwarded-for"], "by=127.0.0.1" in str(seen["forwarded"])) == ("127.0.0.1", True)


def test_verb_query_and_an_empty_body(way: Way) -> None:
    caller, callee = way
    extension = common_pb2.HTTPExtension(verb=common_pb2.HTTPExtension.GET, querystring="a=b")
    answer, _ = invoke(caller, callee.app_id + ".default", "get", b"", http_extension=extension)
    assert (answer.data.value, answer.content_type) == (b"a=b", "")


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "ABORTED", "UNAVAILABLE", "CANCELLED"])
def test_what_an_application_refuses(way: Way, code: str) -> None:
    caller, callee = way
    error = failing(lambda: invoke(caller, callee.app_id, f"refuse-{code}"))
    assert (error.code().name, error.details(), infos(error)) == (code, REFUSES, INFO)
    assert pairs(error.initial_metadata()) == {}
    assert len(callee.app.seen) == 1  # asked once: an application's own answer is not retried


@pytest.mark.parametrize(
    ("to", "cause"),
    [
        ("ghost", "no host found with the given ID"),
        ("", "app id is empty"),
        ("a.b.c", "invalid app id a.b.c"),
    ],
)
@pytest.mark.parametrize("name", ["daprd-1", "node-1"])
def test_an_application_that_is_not_there(members: dict[str, Member], name: str, to: str, cause: str) -> None:
    """A meshnode adds the machine-readable reason that daprd's HTTP API gives."""
    error = failing(lambda: invoke(members[name], to, "echo"))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INTERNAL, f"failed to invoke, id: {to}, err: {cause}",
    )  # fmt: skip
    assert [info[0] for info in infos(error)] == (["ERR_DIRECT_INVOKE"] if name == "node-1" else [])


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        ("/a//b/../c", "/a/c"),
        ("../x", "x"),
        ("//x", "/x"),
        ("a/..", ""),
        (".", ""),
        ("/..", "/"),
        ("ä/", "ä"),
    ],
)
def test_a_methods_path_is_made_plain(way: Way, sent: str, came: str) -> None:
    caller, callee = way
    invoke(caller, callee.app_id, sent)
    assert callee.app.methods[-1] == came


@pytest.mark.parametrize(
    ("method", "words"),
    [("a?b", 'forbidden character: "a?b"'), ("a#", 'forbidden character: "a#"'), ("ä\x07", "at position 2")],
)
def test_a_method_that_would_be_more_than_a_path(way: Way, method: str, words: str) -> None:
    caller, callee = way
    error = failing(lambda: invoke(caller, callee.app_id, method))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details().startswith(f"failed to invoke, id: {callee.app_id}, err: ")
    assert "invalid method: method contains " in error.details()
    assert words in error.details()
    assert not callee.app.seen


def test_large_and_too_large_messages(way: Way) -> None:
    caller, callee = way
    answer, _ = invoke(caller, callee.app_id, "echo", bytes(3 << 20))
    assert answer.data.value == bytes(3 << 20)
    error = failing(lambda: invoke(caller, callee.app_id, "echo", bytes(5 << 20)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "received message larger than max" in error.details()


def test_a_deadline(way: Way) -> None:
    """A meshnode beside the callee ends the application's call, too; a daprd lets OnInvoke run on."""
    caller, callee = way
    error = failing(lambda: invoke(caller, callee.app_id, "wait", timeout=1))
    # A daprd may be faster than its client's own clock, and calls it INTERNAL then.
    wrapped = error.code() is grpc.StatusCode.INTERNAL and "DeadlineExceeded" in (error.details() or "")
    assert error.code() in OVER or (wrapped and caller.app_id.startswith("daprd"))
    assert callee.app.entered.acquire(timeout=20)
    if callee.app_id == "node-2":
        assert callee.app.cancelled.acquire(timeout=20)
    callee.app.let_go()


def test_the_api_token_of_the_caller_stays_with_its_sidecar(way: Way) -> None:
    """It is between an application and its own sidecar; a daprd hands it to the other application."""
    caller, callee = way
    invoke(caller, callee.app_id, "echo", metadata=[("dapr-api-token", "secret")])
    handed_on = caller.app_id == "daprd-1" and callee.app_id == "daprd-2"
    assert ("dapr-api-token" in dict(callee.app.seen[0])) == handed_on


# --- proxied calls


def proxied(caller: Member, to: str, kind: str, what: Any, **options: Any) -> Any:
    makers = {
        "Unary": caller.channel.unary_unary, "Client": caller.channel.stream_unary,
        "Server": caller.channel.unary_stream, "Both": caller.channel.stream_stream,
    }  # fmt: skip
    metadata = [("dapr-app-id", to), *([] if kind == "Unary" else [STREAM]), *options.pop("metadata", ())]
    call = makers[kind](f"/{SERVICE}/{kind}", _registered_method=False)
    call = call if kind in ("Server", "Both") else call.with_call
    return call(what, metadata=metadata, **{"timeout": 20, **options})


ENDS = {"last": "word", "last-bin": b"\x02\xfd"}


def test_one_message_each_way(way: Way) -> None:
    caller, callee = way
    sent = [("note", "n1"), ("note", "n2"), ("blob-bin", b"\x00\xfe")]
    sent.append(("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))
    answer, call = proxied(caller, callee.app_id, "Unary", b"data", metadata=sent)
    assert answer == b"data"
    assert pairs(call.initial_metadata()) == {"first": "n1,n2", "first-bin": b"\x01\xfe"}
    assert pairs(call.trailing_metadata()) == ENDS
    seen = dict(callee.app.seen[0])
    assert (seen["dapr-caller-app-id"], seen["dapr-callee-app-id"]) == (caller.app_id, callee.app_id)
    assert seen["blob-bin"] == b"\x00\xfe"
    assert str(seen["traceparent"]).split("-")[1] == TRACE
    assert "dapr-app-id" not in seen


def test_streams_of_the_caller_the_callee_and_both(way: Way) -> None:
    caller, callee = way
    assert proxied(caller, callee.app_id, "Client", iter([b"a", b"b", b"c"]))[0] == b"a+b+c"
    served = proxied(caller, callee.app_id, "Server", b"99")
    assert list(served) == [str(number).encode() for number in range(99)]
    assert pairs(served.trailing_metadata()) == ENDS
    nothing = proxied(caller, callee.app_id, "Server", b"0")
    assert (list(nothing), pairs(nothing.trailing_metadata())) == ([], ENDS)
    large = [bytes([number]) * (1 << 20) for number in range(8)]
    both = proxied(caller, callee.app_id, "Both", iter(large))
    assert list(both) == large
    assert pairs(both.initial_metadata()) == {"first": "", "first-bin": b"\x01\xfe"}


def test_a_conversation_in_turns(way: Way) -> None:
    caller, callee = way
    questions: queue.Queue[bytes | None] = queue.Queue(1)
    answers_to = proxied(caller, callee.app_id, "Both", iter(questions.get, None))
    for number in range(5):
        questions.put(b"a%d" % number)
        assert next(answers_to) == b"A%d" % number
    questions.put(None)
    assert list(answers_to) == []


def test_what_a_proxied_application_refuses(way: Way) -> None:
    caller, callee = way
    error = failing(lambda: proxied(caller, callee.app_id, "Unary", b"refuse"))
    assert (error.code().name, error.details(), infos(error)) == ("FAILED_PRECONDITION", REFUSES, INFO)
    stream, got = proxied(caller, callee.app_id, "Server", b"5"), []
    error = failing(lambda: got.extend(iter(stream.__next__, None)))
    assert (error.code().name, error.details(), infos(error)) == ("DATA_LOSS", REFUSES, INFO)
    unknown = caller.channel.unary_unary(f"/{SERVICE}/Nothing", _registered_method=False)
    error = failing(lambda: unknown(b"", metadata=[("dapr-app-id", callee.app_id)], timeout=20))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_proxied_path_arrives_as_it_is_or_is_refused(way: Way) -> None:
    caller, callee = way

    def call(path: str) -> Any:
        unary = caller.channel.unary_unary(path, _registered_method=False)
        return unary(b"data", metadata=[("dapr-app-id", callee.app_id)], timeout=20)

    assert call(f"/{SERVICE}/Unary") == b"data"
    for path in (f"/{SERVICE}//Unary", f"/a/../{SERVICE}/./Unary"):
        assert failing(lambda at=path: call(at)).code() is grpc.StatusCode.UNIMPLEMENTED
    error = failing(lambda: call(f"/{SERVICE}/Unary?x"))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f'invalid method: method contains forbidden character: "/{SERVICE}/Unary?x"',
    )


def test_large_and_too_large_proxied_messages(way: Way) -> None:
    caller, callee = way
    assert proxied(caller, callee.app_id, "Unary", bytes(3 << 20))[0] == bytes(3 << 20)
    error = failing(lambda: proxied(caller, callee.app_id, "Unary", bytes(5 << 20)))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (5242880 vs. 4194304)",
    )  # fmt: skip


def test_deadline_and_cancellation_arrive_at_the_other_end(way: Way) -> None:
    caller, callee = way
    error = failing(lambda: proxied(caller, callee.app_id, "Unary", b"wait", timeout=1))
    assert error.code() in OVER
    assert callee.app.entered.acquire(timeout=20)
    assert callee.app.cancelled.acquire(timeout=20)
    stream = proxied(caller, callee.app_id, "Server", b"wait")
    assert next(stream) == b"0"
    assert callee.app.entered.acquire(timeout=20)
    stream.cancel()
    assert callee.app.cancelled.acquire(timeout=20)


@pytest.mark.parametrize("name", ["daprd-1", "node-1"])
def test_a_proxied_call_to_nobody(members: dict[str, Member], name: str) -> None:
    error = failing(lambda: proxied(members[name], "ghost", "Unary", b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "no host found with the given ID")


# --- by Consul


@pytest.mark.skipif(find_consul() is None, reason="consul is not installed")
def test_found_by_consul(tmp_path: Path) -> None:
    with consul_agent(tmp_path) as agent:
        settings = f"client: {{address: '{agent.address}'}}, selfRegister: true"
        with mesh(tmp_path, CONFIGURATION % ("consul", settings), ("daprd-1", "node-1")) as made:
            for caller, callee in (("daprd-1", "node-1"), ("node-1", "daprd-1")):
                wait_until(lambda by=caller, to=callee: answers(made[by], to), what=f"{callee} being found")
                assert proxied(made[caller], callee, "Unary", b"data")[0] == b"data"
            for caller in made.values():  # the cause is in words of each one's own
                error = failing(lambda by=caller: invoke(by, "ghost", "echo"))
                assert error.code() is grpc.StatusCode.INTERNAL
                assert error.details().startswith("failed to invoke, id: ghost, err: no h")


def answers(caller: Member, to: str) -> bool:
    """A service is found once its health check has passed."""
    try:
        return bool(invoke(caller, to, "echo")[0].data.value == b"hello")
    except grpc.RpcError:
        return False
