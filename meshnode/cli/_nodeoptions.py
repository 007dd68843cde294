"""From flags, environment and settings files to `NodeOptions`.

May import `meshnode.config.nodeoptions` and the flag tables; lies on the start-up path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshnode.cli._errors import UsageProblem, suggestion
from meshnode.cli._nodeflags import UNUSED_FLAGS
from meshnode.cli._settings import Resolved
from meshnode.config.nodeoptions import AppHealthOptions, NodeOptions

__all__ = ["node_options"]

_MB = 1 << 20
_KB = 1 << 10
_HTTP_PROTOCOLS = frozenset({"http", "https", "h2c"})

# Flags whose converted value is a NodeOptions field as it is.
_DIRECT = {
    "app-id": "app_id",
    "app-channel-address": "app_channel_address",
    "dapr-grpc-port": "grpc_port",
    "unix-domain-socket": "unix_domain_socket",
    "dapr-internal-grpc-port": "internal_grpc_port",
    "dapr-internal-grpc-listen-address": "internal_listen_address",
    "resources-path": "resources_paths",
    "config": "config_paths",
    "lenient": "lenient",
    "log-as-json": "log_as_json",
    "log-file": "log_file",
    "enable-api-logging": "api_logging",
    "placement-host-address": "placement_addresses",
    "scheduler-host-address": "scheduler_addresses",
    "sentry-address": "sentry_address",
    "control-plane-trust-domain": "trust_domain",
    "control-plane-namespace": "control_plane_namespace",
}


def node_options(settings: Resolved, env: Mapping[str, str]) -> NodeOptions:
    """Build the options; raises `UsageProblem` where values do not fit together."""
    _check_app_id(settings.get("app-id", ""))
    fields: dict[str, Any] = {
        field: settings.get(flag) for flag, field in _DIRECT.items() if flag in settings
    }
    fields |= _application(settings) | _limits(settings) | _lifetime(settings)
    if "log-level" in settings:
        level = settings.get("log-level")
        fields["log_level"] = "warn" if level == "warning" else level
    if "dapr-listen-addresses" in settings:
        fields["listen_addresses"] = tuple(
            address.removeprefix("[").removesuffix("]") for address in settings.get("dapr-listen-addresses")
        )
    fields["unused_flags"] = tuple(f"--{name}" for name in UNUSED_FLAGS if name in settings)
    return NodeOptions(**fields, **_environment(env))


def _check_app_id(app_id: str) -> None:
    """A dot would begin the namespace when others call it, `||` end the prefix of a state key; others could
    not stand in the name of a log file.
    """
    if not app_id:
        raise UsageProblem("--app-id is needed: it is the application's name in the mesh")
    wrong = sorted({char for char in app_id if char in "./\\|" or not char.isprintable() or char.isspace()})
    if wrong:
        raise UsageProblem(f"--app-id: {app_id!r} has {wrong[0]!r} in it, which an app id cannot have")


def _application(settings: Resolved) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "app_tls": _app_tls(settings),
        # daprd's 0 means that there is no application, like an absent flag.
        "app_port": settings.get("app-port") or None,
    }
    concurrency = settings.get("app-max-concurrency", -1)
    if concurrency == 0 or concurrency < -1:
        raise UsageProblem(f"--app-max-concurrency: {concurrency} would let nothing through; -1 is no limit")
    fields["app_max_concurrency"] = None if concurrency == -1 else concurrency
    if settings.get("enable-app-health-check", False):
        fields["app_health"] = _app_health(settings)
    return fields


def _app_tls(settings: Resolved) -> bool:
    protocol = settings.get("app-protocol", "grpc").lower()
    if protocol in _HTTP_PROTOCOLS:
        raise UsageProblem(
            f"--app-protocol {protocol} is not served: the node speaks gRPC only, to the application too",
            "let the application serve AppCallback over gRPC: --app-protocol grpc, or grpcs for TLS",
        )
    if protocol not in ("grpc", "grpcs"):
        raise UsageProblem(
            f"--app-protocol: {protocol!r} is not one of grpc, grpcs", suggestion(protocol, ("grpc", "grpcs"))
        )
    return protocol == "grpcs" or bool(settings.get("app-ssl", False))


def _app_health(settings: Resolved) -> AppHealthOptions:
    interval = settings.get("app-health-probe-interval", 5)
    timeout = settings.get("app-health-probe-timeout", 500)
    threshold = settings.get("app-health-threshold", 3)
    for name, value in (("interval", interval), ("timeout", timeout)):
        if value <= 0:
            raise UsageProblem(f"--app-health-probe-{name}: {value} must be above 0")
    if threshold <= 0:
        raise UsageProblem(f"--app-health-threshold: {threshold} must be above 0")
    if timeout > interval * 1000:
        raise UsageProblem(
            f"--app-health-probe-timeout: {timeout} ms is longer than the interval of {interval} s"
        )
    return AppHealthOptions(interval=float(interval), timeout=timeout / 1000, threshold=threshold)


def _limits(settings: Resolved) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    body = _either(settings, "max-body-size", "dapr-http-max-request-size", _MB)
    header = _either(settings, "read-buffer-size", "dapr-http-read-buffer-size", _KB)
    if body is not None:
        fields["max_body_size"] = body if body > 0 else None
    if header is not None and header > 0:
        fields["max_header_size"] = header
    return fields


def _either(settings: Resolved, name: str, old: str, factor: int) -> int | None:
    if name in settings:
        value: int = settings.get(name)
        return value
    value = settings.get(old, 0)
    return value * factor if value > 0 else (value or None)


def _lifetime(settings: Resolved) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "dapr-graceful-shutdown-seconds" in settings:
        seconds = settings.get("dapr-graceful-shutdown-seconds")
        if seconds < 0:
            raise UsageProblem(f"--dapr-graceful-shutdown-seconds: {seconds} is below 0")
        fields["graceful_shutdown"] = float(seconds)
    if "dapr-block-shutdown-duration" in settings:
        fields["block_shutdown"] = settings.get("dapr-block-shutdown-duration")
    return fields


def _environment(env: Mapping[str, str]) -> dict[str, Any]:
    folder = env.get("MESHNODE_STATE_DIR")
    return {
        "state_dir": Path(folder) if folder else None,
        "namespace": env.get("NAMESPACE") or "default",
        "host_ip": env.get("DAPR_HOST_IP") or None,
        "api_token": env.get("DAPR_API_TOKEN") or None,
        "app_api_token": env.get("APP_API_TOKEN") or None,
        "env": dict(env),
    }
