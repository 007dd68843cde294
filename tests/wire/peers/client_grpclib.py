"""Calls through grpclib's client. Commands: open, call, calls (many at once), cancel, close."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from in_loop import serve_in_loop
from raw_codec import RawCodec, RawDetails
from service_rules import CALLS, SERVICE

channels: dict[int, Channel] = {}
SHAPES = {
    "uu": Cardinality.UNARY_UNARY,
    "us": Cardinality.UNARY_STREAM,
    "su": Cardinality.STREAM_UNARY,
    "ss": Cardinality.STREAM_STREAM,
}


def open_channel(command: dict[str, Any]) -> int:
    context = None
    if "ca" in command:
        context = ssl.create_default_context(cadata=command["ca"].decode())
        context.set_alpn_protocols(["h2"])
    codecs = {"codec": RawCodec(), "status_details_codec": RawDetails()}
    target = command["target"]
    if target.startswith("unix:"):
        channel = Channel(path=target.removeprefix("unix:"), **codecs)
    else:
        host, _, port = target.rpartition(":")
        channel = Channel(host, int(port), ssl=context, **codecs)
    number = len(channels) + 1
    channels[number] = channel
    return number


def start(command: dict[str, Any]) -> Stream[bytes, bytes]:
    name = command["method"]
    return channels[command["channel"]].request(
        f"/{SERVICE}/{name}",
        SHAPES[CALLS[name]],
        bytes,
        bytes,
        timeout=command.get("timeout"),
        metadata=[tuple(pair) for pair in command.get("metadata", [])],
    )


async def call(command: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"replies": [], "code": 0, "message": None, "initial": [], "trailing": []}
    messages = command.get("messages", [b""])
    stream: Stream[bytes, bytes] | None = None  # a very short deadline passes before there is one
    try:
        async with start(command) as stream:
            await stream.send_request()
            for message in messages[:-1]:
                await stream.send_message(message)
            await stream.send_message(messages[-1], end=True)
            await stream.recv_initial_metadata()
            result["initial"] = list((stream.initial_metadata or {}).items())
            while (reply := await stream.recv_message()) is not None:
                result["replies"].append(reply)
            await stream.recv_trailing_metadata()
    except GRPCError as error:
        result.update(code=error.status.value, message=error.message, details=error.details)
    except TimeoutError:
        result["code"] = Status.DEADLINE_EXCEEDED.value
    if stream is not None:
        result["trailing"] = list((stream.trailing_metadata or {}).items())
    return result


async def handle(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "open":
            return open_channel(command)
        case "call":
            return await call(command)
        case "calls":
            return await asyncio.gather(*[call(command) for _ in range(command["times"])])
        case "cancel":
            async with start(command) as stream:
                await stream.send_request()
                await stream.recv_initial_metadata()  # the handler runs
                await stream.cancel()
            return Status.CANCELLED.value
        case "close":
            channels[command["channel"]].close()
    return None


async def close() -> None:
    for channel in channels.values():
        channel.close()


if __name__ == "__main__":
    serve_in_loop(handle, close)
