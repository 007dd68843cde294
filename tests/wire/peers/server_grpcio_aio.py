"""The test service on grpcio's asyncio server. Commands: start (answers the port), stats, stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
from in_loop import serve_in_loop
from service_rules import METHODS, SERVICE, Wish, spread, wish_of

COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
CODES = {code.value[0]: code for code in grpc.StatusCode}
stats: Counter[str] = Counter()
servers: dict[int, grpc.aio.Server] = {}


async def begin(context: grpc.aio.ServicerContext) -> Wish:
    wish = wish_of(context.invocation_metadata())
    if wish.initial:
        await context.send_initial_metadata(wish.initial)
    return wish


async def end(context: grpc.aio.ServicerContext, wish: Wish) -> None:
    trailing = list(wish.trailing)
    if wish.details is not None:
        trailing.append(("grpc-status-details-bin", wish.details))
    context.set_trailing_metadata(trailing)
    if wish.fail:
        await context.abort(CODES[wish.fail], wish.message, tuple(trailing))


async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await end(context, await begin(context))
    return request


async def collect(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
    wish = await begin(context)
    joined = b"".join([request async for request in requests])
    await end(context, wish)
    return joined


async def spread_(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    wish = await begin(context)
    for message in spread(request, wish):
        yield message
    await end(context, wish)


async def chat(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    wish = await begin(context)
    async for request in requests:
        yield request
    await end(context, wish)


async def hang(_requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    await context.send_initial_metadata(())
    stats["hanging"] += 1
    try:
        await asyncio.Event().wait()
    finally:
        stats["cancelled"] += 1
    yield b""


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


async def start(command: dict[str, Any]) -> int:
    server = grpc.aio.server(
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
    await server.start()
    servers[port] = server
    return int(port)


async def handle(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "start":
            return await start(command)
        case "stats":
            return dict(stats)
        case "stop":
            await servers.pop(command["port"]).stop(command.get("grace"))
    return None


async def close() -> None:
    for server in servers.values():
        await server.stop(None)


if __name__ == "__main__":
    serve_in_loop(handle, close)
