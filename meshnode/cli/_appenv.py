"""The environment an application is started with: where its node is and who it is, under the names the SDKs
read.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["app_environment", "grpc_endpoint"]


def grpc_endpoint(address: str) -> str:
    """A node's address as SDKs write endpoints: `http://host:port`, or `unix:/path` as it is."""
    return address if address.startswith("unix:") else f"http://{address}"


def app_environment(
    base: Mapping[str, str],
    *,
    app_id: str,
    grpc_address: str,
    http_port: int,
    app_port: int | None = None,
    app_protocol: str = "grpc",
    app_channel_address: str = "127.0.0.1",
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """`base` with what `dapr run` would set, and what makes SDKs that prefer HTTP use gRPC.

    `extra` (a run file's `env`) wins over all of it. API tokens are in `base` already.
    """
    env = dict(base)
    env |= {
        "APP_ID": app_id,
        "APP_PROTOCOL": app_protocol,
        "APP_CHANNEL_ADDRESS": app_channel_address,
        "DAPR_GRPC_ENDPOINT": grpc_endpoint(grpc_address),
        "DAPR_HTTP_PORT": str(http_port),
        "DAPR_API_PROTOCOL": "grpc",
        "DAPR_API_METHOD_INVOCATION_PROTOCOL": "grpc",
    }
    if app_port:
        env["APP_PORT"] = str(app_port)
    host, _, port = grpc_address.rpartition(":")
    if not grpc_address.startswith("unix:"):
        env["DAPR_GRPC_PORT"] = port
        env["DAPR_RUNTIME_HOST"] = host
    # Output through a pipe is buffered by Python until it is too late to be of use.
    env.setdefault("PYTHONUNBUFFERED", "1")
    return env | dict(extra or {})
