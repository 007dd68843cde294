"""gRPC over HTTP/2 on trio: a server and a channel with grpclib's programming surface, and raw calls for
proxies.

The layers, from the bottom; a module imports only from the layers below its own.

    values     limits, guard, deadline, backoff, history; frames
    rules      hpack; rules (gRPC's headers), fields (HTTP/2's), messages; exceptions, settings, derived
    sans-io    h2stream; outbound, inflow, reader, control, roles; connection
    trio       io, listeners; waiting, keepalive
    server     raw_call, server_stream; server_connection, server
    client     client_connection; raw_client, client_stream, channel

Everything up to `connection` is without I/O: bytes in, state changes and bytes out. trio appears above it
only (and in `deadline`, for its clock). The package imports `meshnode.errors` and nothing else of meshnode.
"""

from __future__ import annotations

from grpclib.const import Cardinality, Handler, Status

from meshnode.transport.backoff import Backoff
from meshnode.transport.channel import Channel, ChannelState, open_channel
from meshnode.transport.client_stream import Stream as ClientStream
from meshnode.transport.deadline import Deadline
from meshnode.transport.exceptions import ConnectionLost, GRPCError, ProtocolError
from meshnode.transport.hpack import HeaderBlock
from meshnode.transport.limits import DEFAULT_LIMITS, KeepAlive, Limits
from meshnode.transport.listeners import AnyListener, Listener, open_listeners
from meshnode.transport.raw_call import RawCall
from meshnode.transport.raw_client import RawClientCall, RawResponse
from meshnode.transport.server import Server
from meshnode.transport.server_connection import Peer
from meshnode.transport.server_stream import Stream

__all__ = [
    "DEFAULT_LIMITS",
    "AnyListener",
    "Backoff",
    "Cardinality",
    "Channel",
    "ChannelState",
    "ClientStream",
    "ConnectionLost",
    "Deadline",
    "GRPCError",
    "Handler",
    "HeaderBlock",
    "KeepAlive",
    "Limits",
    "Listener",
    "Peer",
    "ProtocolError",
    "RawCall",
    "RawClientCall",
    "RawResponse",
    "Server",
    "Status",
    "Stream",
    "open_channel",
    "open_listeners",
]
