"""Pluggable components, as Dapr has them: a component served by another process on a Unix socket, by the
services of `dapr.proto.components.v1`.

The node's side is `client`: `meshnode.sockets` finds what is served and makes drivers of it. The other side
is `serve`, with which a Python author offers a driver to any daprd or meshnode on the machine:

    import trio
    from meshnode.pluggable import serve
    from my_store import driver              # a meshnode.interfaces.Driver

    trio.run(serve, driver)                  # /tmp/dapr-components-sockets/NAME.sock

Layers: names; client (see there); server (see there). May import everything below the surfaces.
"""

from meshnode.pluggable.server.serving import serve

__all__ = ["serve"]
