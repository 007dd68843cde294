"""The same requests to a daprd and to a meshnode, and what each answers: status, message, details, response
and metadata, in a form that can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from attrs import field, frozen
from dapr.proto.runtime.v1 import dapr_pb2_grpc
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty  # type: ignore[attr-defined]
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from support.daprd_servers import daprd
from support.processes import node

__all__ = ["Allowed", "Answer", "Case", "Pair", "Sidecar", "ask", "compare", "differences", "sidecars"]

_PATIENCE = 20
"""Seconds until a request that neither side answers fails its test."""
_TRANSPORT = {"content-type", "date", "grpc-accept-encoding", "accept-encoding", "user-agent"}
"""Metadata of the HTTP/2 library, not of the sidecar."""
_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.ResourceInfo,
    error_details_pb2.BadRequest,
)


@frozen
class Answer:
    """What a sidecar answered. `response` is the message, or those of a stream, as JSON values; `details` are
    sorted, as their order means nothing.
    """

    status: str
    message: str = ""
    details: Sequence[tuple[str, Any]] = ()
    response: Any = None
    headers: Mapping[str, str] = field(factory=dict)
    trailers: Mapping[str, str] = field(factory=dict)


@frozen
class Allowed:
    """A difference that is meant: why, and the parts of meshnode's answer that are not as daprd's."""

    why: str
    ours: Mapping[str, Any]


@frozen
class Case:
    """A request by name. `method` is one of Dapr's, or the path of any that takes `Empty`. `before` are
    requests that lead up to it; what they answer is not compared.
    """

    name: str
    method: str
    request: Message | Sequence[Message]
    allowed: Allowed | None = None
    before: Sequence[tuple[str, Message]] = ()
    metadata: Sequence[tuple[str, str]] = ()

    def __str__(self) -> str:
        return self.name


@frozen
class Sidecar:
    """A running one: the channel to its API, its own process's addresses and folder to be masked."""

    channel: grpc.Channel
    masks: Mapping[str, str]


@frozen
class Pair:
    """A daprd and a meshnode with the same resources."""

    daprd: Sidecar
    meshnode: Sidecar


@contextmanager
def sidecars(
    home: Path,
    resources: Callable[[str], str] | str = "",
    *flags: str,
    configuration: str = "",
    app_id: str = "app",
    app_port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Pair]:
    """`resources` may be made from the side's name, where the two must not share a server's keys."""
    texts = {side: resources if isinstance(resources, str) else resources(side) for side in _SIDES}
    configs = {side: configuration.replace("HOME", str(home / side)) for side in _SIDES}
    for side in _SIDES:
        (home / side).mkdir()
    with ExitStack() as stack:
        theirs = stack.enter_context(
            daprd(
                app_id, home, *flags,
                resources=texts["daprd"], configuration=configs["daprd"], app_port=app_port, env=env,
            )
        )  # fmt: skip
        if configuration:
            config = home / "meshnode-config.yaml"
            config.write_text(configs["meshnode"])
            flags = ("--config", str(config), *flags)
        ours = stack.enter_context(
            node(app_id, home, *flags, resources=texts["meshnode"] or _NOTHING, app_port=app_port, env=env)
        )
        made = []
        for side, address in zip(_SIDES, (theirs.address, ours.address), strict=True):
            channel = stack.enter_context(grpc.insecure_channel(address))
            made.append(Sidecar(channel, {f"-{side}": "-SIDE", address: "ADDRESS"}))
        yield Pair(*made)


_SIDES = ("daprd", "meshnode")
_MASKS = (
    (re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^[0-9a-f]{8}-[0-9]+$"), "ETAG"),
    (re.compile(r"(possible etag mismatch\. error from state store: ).*"), r"\1WORDS"),
    (re.compile(r"(invalid etag value).*"), r"\1 WORDS"),
    (re.compile(r"(failed to wrap the file key: ).*"), r"\1WORDS"),
    (re.compile(r"^[0-9]{16}$"), "TOKEN"),
)
"""Etags in memory and fencing tokens are made up; what is wrong with an etag or a key each driver says in its
own words.
"""
_NOTHING = "# Resources that hold nothing: without any a node has defaults of its own.\n"


def ask(sidecar: Sidecar, case: Case) -> Answer:
    """The answer to a case; AssertionError if there is none in time."""
    for method, request in case.before:
        _call(sidecar, method, request, ())
    return _call(sidecar, case.method, case.request, case.metadata)


def _call(
    sidecar: Sidecar, method: str, request: Message | Sequence[Message], metadata: Sequence[tuple[str, str]]
) -> Answer:
    stub: Any = dapr_pb2_grpc.DaprStub(sidecar.channel)  # type: ignore[no-untyped-call]
    callable_ = (
        sidecar.channel.unary_unary(
            method, Empty.SerializeToString, Empty.FromString, _registered_method=False
        )
        if method.startswith("/")
        else getattr(stub, method)
    )
    sent = request if isinstance(request, Message) else iter(request)
    try:
        if isinstance(callable_, grpc.UnaryUnaryMultiCallable):
            response, call = callable_.with_call(sent, metadata=metadata, timeout=_PATIENCE)
            body: Any = _json(response)
        else:
            call = callable_(sent, metadata=metadata, timeout=_PATIENCE)
            body = [_json(message) for message in call]
    except grpc.RpcError as error:
        return _masked(sidecar, _failed(error))
    answer = Answer(
        "OK", response=body, headers=_metadata(call.initial_metadata()),
        trailers=_metadata(call.trailing_metadata()),
    )  # fmt: skip
    return _masked(sidecar, answer)


def _failed(error: Any) -> Answer:
    assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, "there was no answer in time"
    details: list[tuple[str, Any]] = []
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)  # type: ignore[no-untyped-call]
            assert status.message == error.details()
            details += [_detail(packed) for packed in status.details]
    details.sort(key=lambda one: one[0])  # their order means nothing
    return Answer(
        error.code().name, error.details(), details, None,
        _metadata(error.initial_metadata()), _metadata(error.trailing_metadata()),
    )  # fmt: skip


def _detail(packed: Any) -> tuple[str, Any]:
    for kind in _DETAILS:
        if packed.Is(kind.DESCRIPTOR):
            message = kind()
            packed.Unpack(message)
            return kind.__name__, _json(message)
    return packed.type_url, packed.value


def _json(message: Message) -> Any:
    return json_format.MessageToDict(  # type: ignore[no-untyped-call]
        message, preserving_proto_field_name=True
    )


def _metadata(pairs: Any) -> dict[str, str]:
    return {key: value for key, value in pairs or () if key not in _TRANSPORT and not key.endswith("-bin")}


def _masked(sidecar: Sidecar, answer: Answer) -> Answer:
    """Without what differs by nature from one process to the other."""

    def mask(value: Any) -> Any:
        if isinstance(value, str):
            for found, name in sidecar.masks.items():
                value = value.replace(found, name)
            for pattern, name in _MASKS:
                value = pattern.sub(name, value)
            return value
        if isinstance(value, dict):
            return {key: mask(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [mask(one) for one in value]
        return value

    return Answer(
        answer.status, mask(answer.message), mask(answer.details), mask(answer.response),
        mask(dict(answer.headers)), mask(dict(answer.trailers)),
    )  # fmt: skip


def differences(theirs: Answer, ours: Answer) -> dict[str, tuple[Any, Any]]:
    """The parts that are not the same, each as (daprd's, ours). Details may say more than daprd's: who does
    not know one does not look for it.
    """
    parts = ("status", "message", "details", "response", "headers", "trailers")
    pairs = {part: (getattr(theirs, part), getattr(ours, part)) for part in parts}
    found = {part: pair for part, pair in pairs.items() if pair[0] != pair[1]}
    if theirs.status == ours.status and all(detail in ours.details for detail in theirs.details):
        found.pop("details", None)
    return found


def compare(pair: Pair, case: Case) -> None:
    """Both answer the same but for what the case allows; what is allowed and does not differ fails, too."""
    found = differences(ask(pair.daprd, case), ask(pair.meshnode, case))
    allowed = {} if case.allowed is None else dict(case.allowed.ours)
    assert {part: _plain(ours) for part, (_, ours) in found.items()} == _plain(allowed), found


def _plain(value: Any) -> Any:
    """With lists for tuples, as expectations are written with either."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
