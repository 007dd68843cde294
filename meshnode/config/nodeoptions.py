"""What one node is started with: the flags of `meshnode node` and the environment it reads, as one value.

`meshnode.cli` fills it in, `meshnode.process.run_node` takes it and nothing else. Defaults are daprd's. This
module also names what the node tells whoever started it: `NodeStarted` is the value of
`task_status.started(...)`, given once the API is listening and the components are loaded, which is before
the application is there (`run` starts the application only then); `on_app_ready` of `run_node` is called
once, when the application's port has answered (never without `app_port`).

Imports attrs and the standard library only: it lies on the start-up path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

__all__ = ["AppHealthOptions", "NodeOptions", "NodeStarted"]


@frozen
class AppHealthOptions:
    """How the application's health is probed; only with `--enable-app-health-check`.

    `interval` and `timeout` are seconds (the flags take seconds and milliseconds, as daprd's); `threshold`
    is the number of failed probes in a row after which the application counts as unhealthy.
    """

    interval: float = 5.0
    timeout: float = 0.5
    threshold: int = 3


@frozen
class NodeOptions:
    """Everything a node is told at start. Ports: 0 lets the system choose a free one."""

    app_id: str
    namespace: str = "default"
    """NAMESPACE."""

    # The application
    app_port: int | None = None
    """None: there is no application to call back."""
    app_tls: bool = False
    """`--app-protocol grpcs`: TLS towards the application, its certificate not verified, as in Dapr."""
    app_channel_address: str = "127.0.0.1"
    app_max_concurrency: int | None = None
    """Calls into the application at a time; None (the flag's -1) is no limit."""
    app_health: AppHealthOptions | None = None
    app_api_token: str | None = field(default=None, repr=False)
    """APP_API_TOKEN: sent to the application as `dapr-api-token`."""

    # The node's own servers
    grpc_port: int = 50001
    listen_addresses: tuple[str, ...] = ()
    """Addresses of the API server, IPv6 without brackets; empty is loopback: the API is for the application
    beside the node.
    """
    unix_domain_socket: Path | None = None
    """A directory: the API listens on `dapr-<app id>-grpc.socket` in it instead of a port."""
    internal_grpc_port: int = 0
    internal_listen_address: str = ""
    """Address of the server other nodes call; empty is every interface, or loopback where the name resolution
    in use does not reach beyond this machine.
    """
    host_ip: str | None = None
    """DAPR_HOST_IP: the address announced to other nodes; None lets the node find its own."""
    api_token: str | None = field(default=None, repr=False)
    """DAPR_API_TOKEN: what callers of the API must present."""
    max_body_size: int | None = 4 << 20
    """Bytes of one message; None is no limit (the flag's -1)."""
    max_header_size: int | None = None
    """`--read-buffer-size`: bytes of one header list; None leaves it to the transport's limits."""

    # Resources
    resources_paths: tuple[Path, ...] = ()
    config_paths: tuple[Path, ...] = ()
    lenient: bool = False
    """Unknown fields in resources are warnings, not errors."""

    # Shutdown
    graceful_shutdown: float = 5.0
    """Seconds that requests in flight have after SIGTERM or SIGINT."""
    block_shutdown: float | None = None
    """After the signal, go on serving for so many seconds or until the application reports unhealthy, then
    shut down.
    """

    # Logs
    log_level: str = "info"
    """One of debug, info, warn, error, fatal."""
    log_as_json: bool = False
    log_file: Path | None = None
    """Logs go to standard output, and to this file as well when it is given."""
    api_logging: bool | None = None
    """`--enable-api-logging`; None when the flag is absent, so that the Configuration decides."""

    # Accepted now, used when actors, jobs and mTLS are there
    placement_addresses: tuple[str, ...] = ()
    scheduler_addresses: tuple[str, ...] = ()
    sentry_address: str = ""
    trust_domain: str = "localhost"
    control_plane_namespace: str = "default"
    unused_flags: tuple[str, ...] = ()
    """Which of these were given, for a note in the log."""

    # Surroundings
    env: Mapping[str, str] = field(factory=dict, repr=False)
    """The environment that `envRef` and the local environment secret store read."""
    state_dir: Path | None = None
    """Folder of the embedded SQLite files; None is the user's state folder."""


@frozen
class NodeStarted:
    """Where the node listens, ports resolved: `host:port` or `unix:/path`, in the form a channel takes."""

    grpc_addresses: tuple[str, ...]
    internal_address: str
    notes: tuple[str, ...] = ()
    """What the user should know, one sentence each (for instance that the embedded state store is in use)."""

    @property
    def grpc_address(self) -> str:
        """The address to use on this machine."""
        return self.grpc_addresses[0]
