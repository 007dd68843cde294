"""Talking to a running node: which one, over which channel, and what its errors mean to a person.

The command line is a client of the gRPC API like any other. A command waits at most `--timeout` seconds for
its answer: here is the edge where that limit is set.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from attrs import evolve, frozen

from meshnode.cli._errors import CliError, UsageProblem, suggestion
from meshnode.cli._records import RunRecord, live_records

if TYPE_CHECKING:
    from meshnode.cli._healthz import HealthCheck

__all__ = [
    "Target",
    "ask",
    "complete_app_ids",
    "each_target",
    "find_record",
    "node_health",
    "opened",
    "target_options",
    "token_metadata",
]

T = TypeVar("T")

_ADDRESSES = ("DAPR_GRPC_ENDPOINT", "DAPR_GRPC_PORT")


@frozen
class Target:
    """Which node to ask: an address, or the node of an app id on this machine, or the only node there is."""

    app_id: str = ""
    address: str = ""
    timeout: float = 10.0

    def resolve(self) -> str:
        """The address of the node's API; raises `CliError` when none can be told."""
        if self.address:
            return _without_scheme(self.address)
        if self.app_id:
            return find_record(self.app_id).grpc_address
        for name in _ADDRESSES:
            if value := os.environ.get(name):
                return _without_scheme(value) if name.endswith("ENDPOINT") else f"127.0.0.1:{value}"
        return _only_record().grpc_address


def each_target(target: Target) -> list[Target]:
    """The node that was meant, or every node on this machine where none was."""
    named = target.app_id or target.address or any(map(os.environ.get, _ADDRESSES))
    records = [] if named else live_records()
    # With one, or none, it resolves as ever.
    if len(records) < 2:
        return [target]
    return [evolve(target, app_id=record.app_id, address=record.grpc_address) for record in records]


def find_record(app_id: str) -> RunRecord:
    """The newest live node of an app id."""
    records = live_records()
    found = [record for record in records if record.app_id == app_id]
    if found:
        return found[-1]
    hint = (
        suggestion(app_id, {record.app_id for record in records}) or "`meshnode list` shows what is running"
    )
    raise CliError(f"no node of {app_id} is running on this machine", hint)


def _only_record() -> RunRecord:
    records = live_records()
    if len(records) == 1:
        return records[0]
    if not records:
        raise CliError(
            "no node is running on this machine", "start one with `meshnode run`, or give --address"
        )
    names = ", ".join(sorted({record.app_id for record in records}))
    raise UsageProblem("several nodes are running: say which with --app-id", f"running: {names}")


def _without_scheme(endpoint: str) -> str:
    return endpoint.removeprefix("http://").removeprefix("grpc://").rstrip("/")


def token_metadata() -> dict[str, str | bytes]:
    """The API token of the environment, as calls carry it."""
    token = os.environ.get("DAPR_API_TOKEN")
    return {"dapr-api-token": token} if token else {}


def ask(target: Target, question: Callable[[Any], Awaitable[T]]) -> T:
    """Open a channel to the node, await `question(channel)`, translate what went wrong."""
    import trio

    async def asked(address: str) -> T:
        with trio.fail_after(target.timeout):
            async with opened(address) as channel:
                return await question(channel)

    address = target.resolve()
    try:
        return trio.run(asked, address)
    except trio.TooSlowError:
        raise CliError(f"the node at {address} did not answer within {target.timeout:g} s") from None


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Any]:
    """A channel to the node; gRPC errors raised inside become sentences."""
    from grpclib.exceptions import GRPCError

    from meshnode.transport import open_channel

    try:
        async with open_channel(address) as channel:
            yield channel
    except* GRPCError as group:
        error = _first(group)
        raise CliError(_sentence(address, error), _reason(error)) from None


def _first(group: BaseExceptionGroup[Any]) -> Any:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _sentence(address: str, error: Any) -> str:
    from grpclib.const import Status

    if error.status is Status.UNAVAILABLE:
        return f"the node at {address} cannot be reached: {error.message}"
    if error.status is Status.UNAUTHENTICATED:
        return "the node asks for an API token: set DAPR_API_TOKEN"
    return f"{error.status.name}: {error.message}"


def _reason(error: Any) -> str:
    """The ErrorInfo's reason, when the status carries one."""
    if not isinstance(error.details, bytes):
        return ""
    from meshnode.wire.google import rpc

    try:
        for detail in rpc.Status.parse(error.details).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                return f"reason: {rpc.ErrorInfo.parse(detail.value).reason}"
    except ValueError:
        pass
    return ""


@asynccontextmanager
async def node_health(address: str) -> AsyncIterator[HealthCheck]:
    """A health check that asks the node at `address`; a node that cannot be asked is not healthy."""
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError

    from meshnode.transport import open_channel
    from meshnode.wire.grpc.health import v1 as health

    async with open_channel(address) as channel:
        stub = health.HealthStub(channel)

        async def check(service: str) -> bool:
            try:
                reply = await stub.check(health.HealthCheckRequest(service=service))
            except GRPCError as error:
                return error.status is Status.NOT_FOUND and service != "" and await check("")
            return reply.status is health.HealthCheckResponseServingStatus.SERVING

        yield check


def complete_app_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion: app ids of the nodes that run now."""
    return sorted({record.app_id for record in live_records() if record.app_id.startswith(incomplete)})


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--app-id`, `--address` and `--timeout`, given to the command as `target`."""

    def wrapped(app_id: str, address: str, timeout: float, **kwargs: Any) -> Any:
        return command(target=Target(app_id, address, timeout), **kwargs)

    wrapped.__doc__ = command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorators = (
        click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS",
                     help="How long to wait for the answer."),
        click.option("--address", default="", metavar="HOST:PORT",
                     help="The node's gRPC address, for one that runs elsewhere."),
        click.option("-i", "--app-id", default="", shell_complete=complete_app_ids,
                     help="Ask the node of this app id; needed when several run."),
    )  # fmt: skip
    for decorate in decorators:
        wrapped = decorate(wrapped)
    return wrapped
