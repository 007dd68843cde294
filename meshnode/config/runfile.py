"""The multi-app run file: Dapr's `dapr.yaml`, read by `meshnode run -f`.

Paths under `common` are relative to the file's folder, those of an application to its `appDirPath`. What an
application does not say, `common` says; environments are merged, and an application's folder may bring its
own `.dapr/resources` and `.dapr/config.yaml`, which come before those of `common`. May import this package
and `meshnode.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, final

import attrs
from attrs import frozen

from meshnode.config._fields import line_field, yaml_field
from meshnode.config._problems import Report
from meshnode.config._scalars import INVALID, Choice, Int, Text, json_text, wrong_type
from meshnode.config._shapes import model
from meshnode.config._yaml import Items, Node, Scalar, Table, documents, is_null
from meshnode.config.loader import read_text
from meshnode.errors import ConfigError, Problem

__all__ = ["RunApp", "RunFile", "load_run_file", "run_file_schema"]

_DEFAULT_NAMES = ("dapr.yaml", "mesh.yaml", "dapr.yml", "mesh.yml")
_DESTINATIONS = ("console", "file", "fileAndConsole")
_LOCAL_RESOURCES = Path(".dapr", "resources")
_LOCAL_CONFIG = Path(".dapr", "config.yaml")

T = TypeVar("T")


@frozen(eq=False, repr=False)
class _Path:
    text: str
    line: int


@final
class _PathShape:
    expected = "a path"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Scalar) or not node.text:
            return wrong_type(node, self.expected, where, report)
        return _Path(node.text, node.line)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@final
class _PathsShape:
    """A list of paths, or one text with commas between them."""

    expected = "a list of paths"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if isinstance(node, Scalar):
            return tuple(_Path(part.strip(), node.line) for part in node.text.split(",") if part.strip())
        if not isinstance(node, Items):
            return wrong_type(node, self.expected, where, report)
        paths = [_PathShape().read(item, f"{where}[{i}]", report) for i, item in enumerate(node.items)]
        return INVALID if INVALID in paths else tuple(paths)

    def schema(self) -> dict[str, Any]:
        return {"type": ["array", "string"], "items": {"type": "string"}}


@final
class _EnvShape:
    """A mapping of variables, or a list of such mappings, which older files of Dapr have."""

    expected = "a mapping of environment variables"

    def read(self, node: Node, where: str, report: Report) -> Any:
        tables = node.items if isinstance(node, Items) else (node,)
        values: dict[str, str] = {}
        for table in tables:
            if not isinstance(table, Table):
                return wrong_type(table, self.expected, where, report)
            for key, value in table.entries:
                if not isinstance(value, Scalar):
                    return wrong_type(value, "text", f"{where}.{key.text}", report)
                values[key.text] = "" if is_null(value) else json_text(value)
        return values

    def schema(self) -> dict[str, Any]:
        texts = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
        return {"anyOf": [texts, {"type": "array", "items": texts}]}


_OnePath = Annotated[_Path | None, _PathShape()]
_Paths = Annotated[tuple[_Path, ...] | None, _PathsShape()]
_Env = Annotated[Mapping[str, str], _EnvShape()]
_Port = Annotated[int | None, Int(-1, 65535)]
_Destination = Annotated[str | None, Choice(_DESTINATIONS)]


@frozen(eq=False, repr=False)
class _Shared:
    """What `common` and each application may say. The metadata of an attribute that is a flag of the node
    names it.
    """

    config: _OnePath = yaml_field("configFilePath", "Configuration file.", default=None)
    resources: _Paths = yaml_field("resourcesPaths", "Folders with resources.", default=None)
    resource: _OnePath = yaml_field(
        "resourcesPath", "One folder with resources, by its older name.", default=None
    )
    env: _Env = yaml_field("env", "Environment variables.", default={})
    node_logs: _Destination = yaml_field("daprdLogDestination", "Where the node's log goes.", default=None)
    app_logs: _Destination = yaml_field(
        "appLogDestination", "Where the application's output goes.", default=None
    )
    runtime: Any = yaml_field("runtimePath", "Where Dapr is installed; not looked at.", default=None)
    app_protocol: str | None = yaml_field("appProtocol", "grpc or grpcs.", default=None)
    app_ssl: bool | None = yaml_field("appSSL", "TLS towards the application.", default=None)
    listen_addresses: str | None = yaml_field("apiListenAddresses", "Addresses of the API.", default=None)
    log_level: str | None = yaml_field("logLevel", "How much is logged.", default=None)
    api_logging: bool | None = yaml_field("enableApiLogging", "Log every call of the API.", default=None)
    max_concurrency: int | None = yaml_field(
        "appMaxConcurrency", "Calls into the application at a time.", default=None
    )
    max_body_size: str | None = yaml_field("maxBodySize", "Largest message, such as 4Mi.", default=None)
    read_buffer_size: str | None = yaml_field("readBufferSize", "Concerns HTTP.", default=None)
    placement: str | None = yaml_field(
        "placementHostAddress", "Address of the placement service.", default=None
    )
    scheduler: str | None = yaml_field("schedulerHostAddress", "Address of the scheduler.", default=None)
    app_health: bool | None = yaml_field(
        "enableAppHealthCheck", "Probe the application's health.", default=None
    )
    app_health_path: str | None = yaml_field("appHealthCheckPath", "Concerns HTTP.", default=None)
    app_health_interval: int | None = yaml_field(
        "appHealthProbeInterval", "Seconds between probes.", default=None
    )
    app_health_timeout: int | None = yaml_field(
        "appHealthProbeTimeout", "Milliseconds for a probe.", default=None
    )
    app_health_threshold: int | None = yaml_field(
        "appHealthThreshold", "Failures until unhealthy.", default=None
    )
    profiling: bool | None = yaml_field("enableProfiling", "Concerns HTTP.", default=None)


@frozen(eq=False, repr=False)
class _App(_Shared):
    folder: Annotated[_Path, _PathShape()] = yaml_field("appDirPath", "The application's folder.")
    app_id: str = yaml_field("appID", "App id; the folder's name if it is not given.", default="")
    command: tuple[str, ...] = yaml_field(
        "command", "Program and arguments; none starts the node alone.", default=()
    )
    app_port: _Port = yaml_field("appPort", "Port of the application.", default=None)
    app_channel_address: str | None = yaml_field(
        "appChannelAddress", "Where the application listens.", default=None
    )
    grpc_port: _Port = yaml_field("daprGRPCPort", "Port of the API.", default=None)
    http_port: _Port = yaml_field("daprHTTPPort", "Port of the health address.", default=None)
    internal_grpc_port: _Port = yaml_field("daprInternalGRPCPort", "Port for other nodes.", default=None)
    metrics_port: _Port = yaml_field("metricsPort", "Port of the metrics.", default=None)
    profile_port: _Port = yaml_field("profilePort", "Concerns HTTP.", default=None)
    unix_domain_socket: str | None = yaml_field(
        "unixDomainSocket", "Folder of a socket for the API.", default=None
    )
    container_image: Any = yaml_field("containerImage", "For Kubernetes; not looked at.", default=None)
    container_pull: Any = yaml_field(
        "containerImagePullPolicy", "For Kubernetes; not looked at.", default=None
    )
    create_service: Any = yaml_field("createService", "For Kubernetes; not looked at.", default=None)
    line: int = line_field()


_FLAGS: Mapping[str, str] = {
    "app_protocol": "app-protocol",
    "app_ssl": "app-ssl",
    "listen_addresses": "dapr-listen-addresses",
    "log_level": "log-level",
    "api_logging": "enable-api-logging",
    "max_concurrency": "app-max-concurrency",
    "max_body_size": "max-body-size",
    "read_buffer_size": "read-buffer-size",
    "placement": "placement-host-address",
    "scheduler": "scheduler-host-address",
    "app_health": "enable-app-health-check",
    "app_health_path": "app-health-check-path",
    "app_health_interval": "app-health-probe-interval",
    "app_health_timeout": "app-health-probe-timeout",
    "app_health_threshold": "app-health-threshold",
    "profiling": "enable-profiling",
    "app_port": "app-port",
    "app_channel_address": "app-channel-address",
    "grpc_port": "dapr-grpc-port",
    "http_port": "dapr-http-port",
    "internal_grpc_port": "dapr-internal-grpc-port",
    "metrics_port": "metrics-port",
    "profile_port": "profile-port",
    "unix_domain_socket": "unix-domain-socket",
}
"""Attribute -> flag of daprd. Negative ports stand for "not set", as in Dapr."""


def _check_version(text: str) -> None:
    if text != "1":
        raise ValueError(f'found "{text}", expected 1')


@frozen(eq=False, repr=False)
class _File:
    version: Annotated[str, Text("1", _check_version)] = yaml_field("version", "Always 1.")
    name: str = yaml_field("name", "Name of the whole.", default="")
    common: _Shared = yaml_field("common", "What holds for every application.", default=_Shared())
    apps: tuple[_App, ...] = yaml_field("apps", "The applications, in the order in which they start.")


@frozen
class RunApp:
    """One application, with all that `common` adds. Log destinations are `console`, `file` or
    `fileAndConsole`.
    """

    app_id: str
    folder: Path
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    resources_paths: tuple[Path, ...] = ()
    config_path: Path | None = None
    flags: Mapping[str, str] = {}
    """The other flags of the node, by daprd's name without dashes: `{"app-port": "5001",
    "enable-api-logging": "true"}`.
    """
    app_logs: str = "fileAndConsole"
    node_logs: str = "file"
    line: int = 0


@frozen
class RunFile:
    path: Path
    apps: tuple[RunApp, ...]
    name: str = ""
    warnings: tuple[Problem, ...] = ()


def load_run_file(path: Path, *, lenient: bool = False, text: str | None = None) -> RunFile:
    """The run file at `path`, or in the folder `path`; `text` replaces its contents (standard input), paths
    then being relative to `path`. Raises `ConfigError` with all problems."""
    report = Report(lenient=lenient)
    base = path
    if text is None:
        path = _found(path, report)
        base = path.parent
        report.file = str(path)
        text = read_text(path, report) if not report.problems else None
    else:
        report.file = "(standard input)"
    manifest = _manifest(text, report) if text is not None else INVALID
    apps = () if manifest is INVALID else tuple(_apps(manifest, base.resolve(), report))
    if report.problems:
        raise ConfigError(report.problems)
    return RunFile(path, apps, manifest.name, tuple(report.warnings))


def run_file_schema() -> dict[str, Any]:
    """JSON Schema (draft-07) of a run file."""
    schema = model(_File).schema()
    schema["properties"]["version"] = {"const": 1}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Multi-app run file", **schema}


def _found(path: Path, report: Report) -> Path:
    if not path.is_dir():
        return path
    for name in _DEFAULT_NAMES:
        if (path / name).is_file():
            return path / name
    report.file = str(path)
    report.problem(0, "", "the folder has no run file", f"expected {' or '.join(_DEFAULT_NAMES[:2])}")
    return path


def _manifest(text: str, report: Report) -> Any:
    nodes = list(documents(text, report))
    if report.problems:
        return INVALID
    if len(nodes) != 1:
        report.problem(1, "", "the file is empty" if not nodes else "the file has more than one document")
        return INVALID
    return model(_File).read(nodes[0], "", report)


def _apps(file: _File, base: Path, report: Report) -> Iterator[RunApp]:
    seen: dict[str, int] = {}
    if not file.apps:
        report.problem(1, "apps", "names no application")
    common = file.common
    shared = [*_resources(common, base, "common", report)]
    config = _existing(common.config, base, "common.configFilePath", report)
    for index, one in enumerate(file.apps):
        where = f"apps[{index}]"
        folder = _existing(one.folder, base, f"{where}.appDirPath", report) or base
        own = tuple(_resources(one, folder, where, report))
        app = RunApp(
            app_id=one.app_id or folder.name,
            folder=folder,
            command=one.command,
            env={**common.env, **one.env},
            resources_paths=own or _local(folder, _LOCAL_RESOURCES) or tuple(shared),
            config_path=_existing(one.config, folder, f"{where}.configFilePath", report)
            or next(iter(_local(folder, _LOCAL_CONFIG)), config),
            flags=_flags(one, common),
            app_logs=one.app_logs or common.app_logs or "fileAndConsole",
            node_logs=one.node_logs or common.node_logs or "file",
            line=one.line,
        )
        if seen.setdefault(app.app_id, one.line) != one.line:
            first = f"first on line {seen[app.app_id]}"
            report.problem(one.line, f"{where}.appID", f'"{app.app_id}" is given twice', first)
        yield app


def _resources(one: _Shared, base: Path, where: str, report: Report) -> Iterator[Path]:
    for index, path in enumerate(one.resources or ()):
        found = _existing(path, base, f"{where}.resourcesPaths[{index}]", report)
        if found is not None:
            yield found
    found = _existing(one.resource, base, f"{where}.resourcesPath", report)
    if found is not None:
        yield found


def _existing(path: _Path | None, base: Path, where: str, report: Report) -> Path | None:
    if path is None:
        return None
    found = base / Path(path.text).expanduser()
    if not found.exists():
        report.problem(path.line, where, f"{found} does not exist")
        return None
    return found.resolve()


def _local(folder: Path, relative: Path) -> tuple[Path, ...]:
    path = folder / relative
    return (path,) if path.exists() else ()


def _flags(one: _App, common: _Shared) -> dict[str, str]:
    merged = {**_given(common), **_given(one)}
    return {_FLAGS[name]: _flag_text(value) for name, value in merged.items() if name in _FLAGS}


def _given(one: _Shared) -> dict[str, Any]:
    values = attrs.asdict(one, recurse=False)
    return {
        name: value for name, value in values.items() if value is not None and not _unset_port(name, value)
    }


def _unset_port(name: str, value: Any) -> bool:
    return name.endswith("_port") and value < 0


def _flag_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
