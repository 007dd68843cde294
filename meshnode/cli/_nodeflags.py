"""The flags of `meshnode node`: daprd's where daprd has them, the few of ours, and those that are refused
because they mean HTTP.

Data only. `_nodeoptions` turns parsed values into `NodeOptions`.
"""

from __future__ import annotations

from meshnode.cli._flags import Flag, FlagTable, Kind

__all__ = ["NODE_FLAGS", "NODE_TABLE", "REFUSED_FLAGS", "UNUSED_FLAGS"]

_APP = "Application"
_SERVERS = "Servers"
_RESOURCES = "Resources"
_LIFE = "Start and end"
_LOGS = "Logs"
_LATER = "Accepted, used by blocks that are not built yet"

_HTTP = "the node speaks gRPC only"
_OFF = ("false", "0", "f", "")

NODE_FLAGS: tuple[Flag, ...] = (
    Flag("app-id", Kind.TEXT, "The application's id: its name in the mesh.", short="i", section=_APP),
    Flag("app-port", Kind.PORT, "The application's gRPC port; without it there are no callbacks.",
         short="p", section=_APP),
    Flag("app-protocol", Kind.TEXT, "How the application is called: grpc, or grpcs for TLS.", "grpc",
         short="P", section=_APP),
    Flag("app-ssl", Kind.BOOL, "The old way to say --app-protocol grpcs.", hidden=True, section=_APP),
    Flag("app-channel-address", Kind.TEXT, "The address the application listens on.", "127.0.0.1",
         section=_APP),
    Flag("app-max-concurrency", Kind.INT, "Calls into the application at a time; -1 is no limit.", "-1",
         section=_APP),
    Flag("enable-app-health-check", Kind.BOOL, "Probe the application and hold traffic back while it fails.",
         "false", section=_APP),
    Flag("app-health-probe-interval", Kind.INT, "Seconds between two probes.", "5", section=_APP),
    Flag("app-health-probe-timeout", Kind.INT, "Milliseconds a probe may take.", "500", section=_APP),
    Flag("app-health-threshold", Kind.INT, "Failed probes in a row until it counts as unhealthy.", "3",
         section=_APP),
    Flag("dapr-grpc-port", Kind.PORT, "Port of the API; 0 takes a free one.", "50001", section=_SERVERS),
    Flag("dapr-listen-addresses", Kind.LIST, "Addresses of the API, separated by commas.", "127.0.0.1",
         section=_SERVERS),
    Flag("unix-domain-socket", Kind.PATH, "Serve the API on a Unix socket in this folder instead of a port.",
         short="u", section=_SERVERS),
    Flag("dapr-internal-grpc-port", Kind.PORT, "Port that other nodes call.", "a free one",
         aliases=("internal-grpc-port",), section=_SERVERS),
    Flag("dapr-internal-grpc-listen-address", Kind.TEXT, "Address that other nodes call.",
         "127.0.0.1, or every interface where name resolution leads beyond this machine", section=_SERVERS),
    Flag("max-body-size", Kind.QUANTITY, "Largest message; -1 is no limit.", "4Mi", section=_SERVERS),
    Flag("dapr-http-max-request-size", Kind.INT, "The old way to give --max-body-size, in MB.", hidden=True,
         section=_SERVERS),
    Flag("read-buffer-size", Kind.QUANTITY, "Largest header list of a call.", "the transport's limit",
         section=_SERVERS),
    Flag("dapr-http-read-buffer-size", Kind.INT, "The old way to give --read-buffer-size, in KB.",
         hidden=True, section=_SERVERS),
    Flag("resources-path", Kind.PATHS, "A folder or file of resources; may be repeated.", short="d",
         aliases=("components-path",), section=_RESOURCES),
    Flag("config", Kind.PATHS, "A file with a Configuration; may be repeated.", short="c",
         section=_RESOURCES),
    Flag("lenient", Kind.BOOL, "Warn about unknown fields in resources instead of refusing to start.",
         "false", section=_RESOURCES),
    Flag("dapr-graceful-shutdown-seconds", Kind.INT, "Seconds that calls in flight get at the end.", "5",
         section=_LIFE),
    Flag("dapr-block-shutdown-duration", Kind.DURATION,
         "Go on serving for so long after the signal, or until the application is unhealthy.", "off",
         section=_LIFE),
    Flag("log-level", Kind.TEXT, "debug, info, warn, error or fatal.", "info",
         choices=("debug", "info", "warn", "warning", "error", "fatal"), section=_LOGS),
    Flag("log-as-json", Kind.BOOL, "One JSON object per log line.", "false", section=_LOGS),
    Flag("log-file", Kind.PATH, "Write the log to this file too.", section=_LOGS),
    Flag("enable-api-logging", Kind.BOOL, "Log each call of the API.", "the Configuration's", section=_LOGS),
    Flag("placement-host-address", Kind.LIST, "Placement servers (actors).", section=_LATER),
    Flag("scheduler-host-address", Kind.LIST, "Scheduler servers (jobs, reminders).", section=_LATER),
    Flag("scheduler-job-streams", Kind.INT, "Streams kept to a scheduler.", "3", section=_LATER, hidden=True),
    Flag("actors-service", Kind.TEXT, "Actors service as type:address.", section=_LATER, hidden=True),
    Flag("reminders-service", Kind.TEXT, "Reminders service as type:address.", section=_LATER, hidden=True),
    Flag("sentry-address", Kind.TEXT, "The certificate authority.", section=_LATER, hidden=True),
    Flag("control-plane-address", Kind.TEXT, "The operator's address.", section=_LATER, hidden=True),
    Flag("control-plane-trust-domain", Kind.TEXT, "Trust domain of the control plane.", "localhost",
         section=_LATER, hidden=True),
    Flag("control-plane-namespace", Kind.TEXT, "Namespace of the control plane.", "default", section=_LATER,
         hidden=True),
    Flag("sentry-request-jwt-audiences", Kind.LIST, "Audiences of certificate requests.", section=_LATER,
         hidden=True),
    Flag("disable-builtin-k8s-secret-store", Kind.BOOL, "No Kubernetes secret store (there is none here).",
         hidden=True, section=_LATER),
    Flag("ready-fd", Kind.INT, "Report readiness on this file descriptor, one JSON object per line.",
         hidden=True),
    Flag("run-info", Kind.TEXT, "What `meshnode run` adds to the node's run record, as JSON.", hidden=True),
)  # fmt: skip

UNUSED_FLAGS = tuple(
    flag.name for flag in NODE_FLAGS if flag.section == _LATER and flag.kind is not Kind.BOOL
)

_NO_HTTP_API = f"it belongs to the HTTP API, and {_HTTP}; applications use --dapr-grpc-port"
_NO_PROFILER = (
    f"the profiler answers over HTTP, and {_HTTP}; `meshnode status --requests` shows what is running"
)
_NO_METRICS = f"the metrics page is HTTP, and {_HTTP}; `meshnode status` shows the same numbers"

REFUSED_FLAGS: tuple[Flag, ...] = (
    Flag("dapr-http-port", Kind.PORT, "", refused=(
        f"{_NO_HTTP_API} (`meshnode run` does take it: it answers the health address some SDKs poll)")),
    Flag("dapr-public-port", Kind.PORT, "", refused=f"it serves health and metadata over HTTP, and {_HTTP}; "
         "grpc.health.v1 and GetMetadata are on --dapr-grpc-port"),
    Flag("dapr-public-listen-address", Kind.TEXT, "", refused=(
        f"it belongs to a port served over HTTP, and {_HTTP}")),
    Flag("allowed-origins", Kind.TEXT, "", harmless=("*",), refused=(
        f"origins are a matter of browsers and the HTTP API, and {_HTTP}")),
    Flag("app-health-check-path", Kind.TEXT, "", harmless=("/healthz", "/health"), refused=(
        "an application is probed with the gRPC method HealthCheck, which has no path")),
    Flag("app-health-port", Kind.PORT, "", refused="an application is probed on its gRPC port, --app-port"),
    Flag("enable-profiling", Kind.BOOL, "", harmless=_OFF, refused=_NO_PROFILER),
    Flag("profile-port", Kind.PORT, "", refused=_NO_PROFILER),
    Flag("enable-metrics", Kind.BOOL, "", harmless=_OFF, refused=_NO_METRICS),
    Flag("metrics-port", Kind.PORT, "", refused=_NO_METRICS),
    Flag("metrics-listen-address", Kind.TEXT, "", refused=_NO_METRICS),
    Flag("enable-mtls", Kind.BOOL, "", harmless=_OFF, refused=(
        "encryption between nodes is not built yet, and pretending would be worse than refusing")),
    Flag("mode", Kind.TEXT, "", harmless=("standalone", ""), refused=(
        "only `standalone` exists; in Kubernetes run the node as a container beside the application")),
    Flag("version", Kind.BOOL, "", harmless=_OFF, refused="`meshnode version` tells versions"),
    Flag("build-info", Kind.BOOL, "", harmless=_OFF, refused="`meshnode version` tells versions"),
    Flag("wait", Kind.BOOL, "", harmless=_OFF, refused=(
        "it waits for the HTTP API; `meshnode status APP_ID --wait` waits for the node")),
)  # fmt: skip

NODE_TABLE = FlagTable("meshnode node", NODE_FLAGS + REFUSED_FLAGS)
