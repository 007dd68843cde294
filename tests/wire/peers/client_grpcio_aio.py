"""Calls through grpcio's asyncio client. Commands: open, call, calls (many at once), cancel, close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from in_loop import serve_in_loop
from service_rules import CALLS, SERVICE

COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
channels: dict[int, grpc.aio.Channel] = {}


def open_channel(command: dict[str, Any]) -> int:
    options = list(command.get("options", {}).items())
    compression = COMPRESSIONS.get(command.get("compression", ""))
    if "ca" in command:
        credentials = grpc.ssl_channel_credentials(command["ca"])
        channel = grpc.aio.secure_channel(command["target"], credentials, options, compression)
    else:
        channel = grpc.aio.insecure_channel(command["target"], options, compression)
    number = len(channels) + 1
    channels[number] = channel
    return number


async def feed(messages: list[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def start(command: dict[str, Any]) -> Any:
    channel = channels[command["channel"]]
    name = command["method"]
    shape = CALLS[name]
    makers = {
        "uu": channel.unary_unary,
        "us": channel.unary_stream,
        "su": channel.stream_unary,
        "ss": channel.stream_stream,
    }
    messages = command.get("messages", [b""])
    return makers[shape](f"/{SERVICE}/{name}")(
        messages[0] if shape[0] == "u" else feed(messages),
        metadata=[tuple(pair) for pair in command.get("metadata", [])],
        timeout=command.get("timeout"),
    )


def metadata_of(pairs: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in pairs or ()]


async def call(command: dict[str, Any]) -> dict[str, Any]:
    started = start(command)
    replies: list[bytes] = []
    try:
        if CALLS[command["method"]][1] == "u":
            replies.append(await started)
        else:
            async for reply in started:
                replies.append(reply)  # one by one: those before an error count
    except grpc.RpcError:
        pass
    return {
        "replies": replies,
        "code": (await started.code()).value[0],
        "message": await started.details(),
        "initial": metadata_of(await started.initial_metadata()),
        "trailing": metadata_of(await started.trailing_metadata()),
    }


async def handle(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "open":
            return open_channel(command)
        case "call":
            return await call(command)
        case "calls":
            return await asyncio.gather(*[call(command) for _ in range(command["times"])])
        case "cancel":
            started = start(command)
            await started.initial_metadata()  # the handler runs
            started.cancel()
            return (await started.code()).value[0]
        case "close":
            await channels[command["channel"]].close()
    return None


async def close() -> None:
    for channel in channels.values():
        await channel.close()


if __name__ == "__main__":
    serve_in_loop(handle, close)
