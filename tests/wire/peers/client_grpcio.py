"""Calls through grpcio's threaded client. Commands: open, call, calls (many at once), cancel, close."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
from jsonlines import serve
from service_rules import CALLS, SERVICE

COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
channels: dict[int, grpc.Channel] = {}


def open_channel(command: dict[str, Any]) -> int:
    options = list(command.get("options", {}).items())
    compression = COMPRESSIONS.get(command.get("compression", ""))
    if "ca" in command:
        credentials = grpc.ssl_channel_credentials(command["ca"])
        channel = grpc.secure_channel(command["target"], credentials, options, compression)
    else:
        channel = grpc.insecure_channel(command["target"], options, compression)
    number = len(channels) + 1
    channels[number] = channel
    return number


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
    method = makers[shape](f"/{SERVICE}/{name}")
    messages = command.get("messages", [b""])
    arguments = {
        "metadata": [tuple(pair) for pair in command.get("metadata", [])],
        "timeout": command.get("timeout"),
    }
    if shape == "uu":
        return method.future(messages[0], **arguments)
    if shape == "su":
        return method.future(iter(messages), **arguments)
    return method(messages[0] if shape == "us" else iter(messages), **arguments)


def metadata_of(pairs: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in pairs or ()]


def call(command: dict[str, Any]) -> dict[str, Any]:
    started = start(command)
    replies: list[bytes] = []
    try:
        if CALLS[command["method"]][1] == "u":
            replies.append(started.result())
        else:
            for reply in started:
                replies.append(reply)  # one by one: those before an error count
    except (grpc.RpcError, grpc.FutureCancelledError):
        pass
    return {
        "replies": replies,
        "code": started.code().value[0],
        "message": started.details(),
        "initial": metadata_of(started.initial_metadata()),
        "trailing": metadata_of(started.trailing_metadata()),
    }


def handle(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "open":
            return open_channel(command)
        case "call":
            return call(command)
        case "calls":
            with futures.ThreadPoolExecutor(command["times"]) as pool:
                return list(pool.map(call, [command] * command["times"]))
        case "cancel":
            started = start(command)
            started.initial_metadata()  # the handler runs
            started.cancel()
            return started.code().value[0]
        case "close":
            channels[command["channel"]].close()
    return None


if __name__ == "__main__":
    serve(handle)
    for left in channels.values():
        left.close()
