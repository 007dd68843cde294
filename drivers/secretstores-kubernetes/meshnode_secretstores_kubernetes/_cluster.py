"""Which cluster, and who we are there: the pod's service account, or a kubeconfig file. Reads files, so it is
called in a thread.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

import yaml
from attrs import field, frozen

from meshnode.errors import ComponentError

__all__ = ["ACCOUNT", "Cluster", "find_cluster"]

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's service account."""
_LARGEST: Final = 8 << 20
_REFUSED: Final = {
    "exec": "programs that fetch credentials",
    "auth-provider": "authentication providers",
    "as": "impersonation",
}


@final
@frozen
class Cluster:
    """Authorities and certificates are PEM, or empty. `token_file` goes before `token`: it may change."""

    server: str
    authorities: str = field(default="", repr=False)
    skip_verify: bool = False
    server_name: str = ""
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    login: tuple[str, str] | None = field(default=None, repr=False)


def find_cluster(kubeconfig_path: str, env: Mapping[str, str]) -> Cluster:
    """Raises `ComponentError`. A file that the component names counts before the service account; in Dapr it
    does not, and has no effect in a cluster.
    """
    if kubeconfig_path:
        return _from_file(Path(kubeconfig_path))
    found = _from_pod(env)
    if found is not None:
        return found
    given = env.get("KUBECONFIG")
    return _from_file(Path(given) if given else Path(env.get("HOME", "/"), ".kube", "config"))


def _from_pod(env: Mapping[str, str]) -> Cluster | None:
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT")
    token = ACCOUNT / "token"
    if not host or not port or not token.is_file():
        return None
    authorities = ACCOUNT / "ca.crt"
    host = f"[{host}]" if ":" in host else host
    return Cluster(
        f"https://{host}:{port}",
        authorities=_text(authorities) if authorities.is_file() else "",
        token_file=token,
    )


def _from_file(path: Path) -> Cluster:
    config = _read(path)
    name = config.get("current-context")
    context = _named(config, "contexts", "context", name, path)
    cluster = _named(config, "clusters", "cluster", context.get("cluster"), path)
    user = _named(config, "users", "user", context.get("user"), path) if context.get("user") else {}
    for key, what in _REFUSED.items():
        if user.get(key):
            raise ComponentError(f"{path}: meshnode knows no {what} ({key}); use a token or a certificate")
    if cluster.get("proxy-url"):
        raise ComponentError(f"{path}: meshnode uses no proxies (proxy-url)")
    server = cluster.get("server")
    if not isinstance(server, str) or not _is_server(server):
        raise ComponentError(f"{path}: the server of the cluster is no address such as https://10.0.0.1:6443")
    folder = path.parent
    token_file = user.get("tokenFile")
    return Cluster(
        server.rstrip("/"),
        authorities=_pem(cluster, "certificate-authority", folder),
        skip_verify=cluster.get("insecure-skip-tls-verify") is True,
        server_name=str(cluster.get("tls-server-name") or ""),
        certificate=_pem(user, "client-certificate", folder),
        key=_pem(user, "client-key", folder),
        token=str(user.get("token") or ""),
        token_file=folder / str(token_file) if token_file else None,
        login=(str(user["username"]), str(user.get("password") or "")) if user.get("username") else None,
    )


def _read(path: Path) -> Mapping[str, Any]:
    """Without a word of what stands in the file."""
    text = _text(path)
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ComponentError(f"{path} is no kubeconfig file")
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ComponentError(f"{path} cannot be read: {reason}") from None


def _named(config: Mapping[str, Any], several: str, one: str, name: Any, path: Path) -> Mapping[str, Any]:
    listed = config.get(several)
    for entry in listed if isinstance(listed, list) else ():
        if (
            isinstance(entry, dict)
            and name
            and entry.get("name") == name
            and isinstance(entry.get(one), dict)
        ):
            return dict(entry[one])
    raise ComponentError(f"{path}: there is no {one} {name!r}" if name else f"{path}: no {one} is chosen")


def _pem(where: Mapping[str, Any], name: str, folder: Path) -> str:
    """What stands in the file itself counts before a path; a path is relative to it."""
    data = where.get(f"{name}-data")
    if data:
        return _decoded(str(data), f"{name}-data")
    return _text(folder / str(where[name])) if where.get(name) else ""


def _decoded(data: str, name: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        raise ComponentError(f"{name} of the kubeconfig file is not base64 of text") from None


def _is_server(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
