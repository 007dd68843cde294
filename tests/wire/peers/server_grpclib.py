"""The test service on grpclib. Commands: start (answers the port), stats, stop."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Any

import grpclib.const
from grpclib.server import Server, Stream
from in_loop import serve_in_loop
from raw_codec import RawCodec, RawDetails
from service_rules import METHODS, SERVICE, Wish, spread, wish_of

stats: Counter[str] = Counter()
servers: dict[int, Server] = {}
SHAPES = {
    "uu": grpclib.const.Cardinality.UNARY_UNARY,
    "us": grpclib.const.Cardinality.UNARY_STREAM,
    "su": grpclib.const.Cardinality.STREAM_UNARY,
    "ss": grpclib.const.Cardinality.STREAM_STREAM,
}


async def begin(stream: Stream[bytes, bytes]) -> Wish:
    assert stream.metadata is not None
    wish = wish_of(stream.metadata.items())
    if wish.initial:
        await stream.send_initial_metadata(metadata=wish.initial)
    return wish


async def end(stream: Stream[bytes, bytes], wish: Wish) -> None:
    status = grpclib.const.Status(wish.fail)
    await stream.send_trailing_metadata(
        status=status,
        status_message=wish.message or None,
        status_details=wish.details,
        metadata=wish.trailing,
    )


class Service:
    async def echo(self, stream: Stream[bytes, bytes]) -> None:
        wish = await begin(stream)
        request = await stream.recv_message()
        if not wish.fail:
            await stream.send_message(request or b"")
        await end(stream, wish)

    async def collect(self, stream: Stream[bytes, bytes]) -> None:
        wish = await begin(stream)
        joined = b"".join([request async for request in stream])
        if not wish.fail:
            await stream.send_message(joined)
        await end(stream, wish)

    async def spread(self, stream: Stream[bytes, bytes]) -> None:
        wish = await begin(stream)
        for message in spread(await stream.recv_message() or b"0", wish):
            await stream.send_message(message)
        await end(stream, wish)

    async def chat(self, stream: Stream[bytes, bytes]) -> None:
        wish = await begin(stream)
        async for request in stream:
            await stream.send_message(request)
        await end(stream, wish)

    async def hang(self, stream: Stream[bytes, bytes]) -> None:
        await stream.send_initial_metadata()
        stats["hanging"] += 1
        try:
            await asyncio.Event().wait()
        finally:
            stats["cancelled"] += 1

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return {
            f"/{SERVICE}/{name}": grpclib.const.Handler(
                getattr(self, name.lower()), SHAPES[shape], bytes, bytes
            )
            for name, shape in METHODS.items()
        }


async def start(command: dict[str, Any]) -> int:
    server = Server([Service()], codec=RawCodec(), status_details_codec=RawDetails())
    context = None
    if "key_file" in command:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(command["chain_file"], command["key_file"])
        context.set_alpn_protocols(["h2"])
    await server.start("127.0.0.1", 0, ssl=context)
    assert server._server is not None
    port = int(server._server.sockets[0].getsockname()[1])
    servers[port] = server
    return port


async def handle(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "start":
            return await start(command)
        case "stats":
            return dict(stats)
        case "stop":
            server = servers.pop(command["port"])
            server.close()
            await server.wait_closed()
    return None


async def close() -> None:
    for server in servers.values():
        server.close()


if __name__ == "__main__":
    serve_in_loop(handle, close)
