"""The test service on grpcio's threaded server. Commands: start (answers the port), stats, stop."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from jsonlines import serve
from service_rules import METHODS, SERVICE, Wish, spread, wish_of

COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
CODES = {code.value[0]: code for code in grpc.StatusCode}
stats: Counter[str] = Counter()
servers: dict[int, grpc.Server] = {}


def begin(context: grpc.ServicerContext) -> Wish:
    wish = wish_of(context.invocation_metadata())
    if wish.initial:
        context.send_initial_metadata(wish.initial)
    return wish


def end(context: grpc.ServicerContext, wish: Wish) -> None:
    trailing = list(wish.trailing)
    if wish.details is not None:
        trailing.append(("grpc-status-details-bin", wish.details))
    context.set_trailing_metadata(trailing)
    if wish.fail:
        context.abort(CODES[wish.fail], wish.message)


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    end(context, begin(context))
    return request


def collect(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    wish = begin(context)
    joined = b"".join(requests)
    end(context, wish)
    return joined


def spread_(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    wish = begin(context)
    yield from spread(request, wish)
    end(context, wish)


def chat(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    wish = begin(context)
    yield from requests
    end(context, wish)


def hang(_requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    ended = threading.Event()
    context.add_callback(ended.set)
    context.send_initial_metadata(())
    stats["hanging"] += 1
    ended.wait()
    stats["cancelled"] += 1
    yield from ()


def handlers() -> grpc.GenericRpcHandler:
    makers = {
        "uu": grpc.unary_unary_rpc_method_handler,
        "us": grpc.unary_stream_rpc_method_handler,
        "su": grpc.stream_unary_rpc_method_handler,
        "ss": grpc.stream_stream_rpc_method_handler,
    }
    functions = {"Echo": echo, "Collect": collect, "Spread": spread_, "Chat": chat, "Hang": hang}
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: makers[shape](functions[name]) for name, shape in METHODS.items()}
    )


def start(command: dict[str, Any]) -> int:
    server = grpc.server(
        futures.ThreadPoolExecutor(64),
        options=list(command.get("options", {}).items()),
        compression=COMPRESSIONS.get(command.get("compression", "")),
    )
    server.add_generic_rpc_handlers((handlers(),))
    address = command.get("address", "127.0.0.1:0")
    if "key" in command:
        credentials = grpc.ssl_server_credentials(((command["key"], command["chain"]),))
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    servers[port] = server
    return port


def handle(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "start":
            return start(command)
        case "stats":
            return dict(stats)
        case "stop":
            servers.pop(command["port"]).stop(command.get("grace")).wait()
    return None


if __name__ == "__main__":
    serve(handle)
    for left in servers.values():
        left.stop(None)
