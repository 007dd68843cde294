"""A real Kubernetes API server for tests, with an etcd of its own, on free loopback ports; both are ended by
their process ids. There are no nodes and no controllers behind it: Secrets, accounts and
permissions need none.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.certificates import Authority
from support.install_etcd import find_etcd
from support.install_kubernetes import find_kube_apiserver
from support.redis_servers import free_port

__all__ = ["ADMIN", "KubernetesServer", "kubernetes_server"]

ADMIN = "the-admin's-token"


class KubernetesServer:
    """`authority` signs the server's certificate, and those of clients whose names it believes."""

    def __init__(self, folder: Path, etcd: str) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.authority = Authority()
        self._folder = folder
        self.ca, certificate, key = self.authority.write(folder, "apiserver")
        (folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
        accounts = folder / "accounts.pem"
        accounts.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        flags = {
            "etcd-servers": etcd,
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.ca,
            "token-auth-file": folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": accounts,
            "service-account-signing-key-file": accounts,
            "service-cluster-ip-range": "10.96.0.0/24",
            "endpoint-reconciler-type": "none",
        }
        self._arguments = [f"--{name}={value}" for name, value in flags.items()]
        self._process: subprocess.Popen[bytes] | None = None
        self._trust = ssl.create_default_context(cafile=self.ca)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        program = find_kube_apiserver()
        assert program is not None, "kube-apiserver is not installed"
        self._process = _started(self._folder / "log", program, *self._arguments)

        def ready() -> bool:
            return self.ask("GET", "/readyz") is not None

        _wait(self._process, ready, self._folder / "log")

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def stop_still(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request as the administrator, behind the driver's back; what its answer holds."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        request = Request(f"{self.url}{path}", data, headers, method=method)
        with urlopen(request, timeout=20, context=self._trust) as answer:
            content = answer.read()
        return json.loads(content) if content.startswith(b"{") else content.decode()

    def make(self, path: str, kind: str, name: str, **more: Any) -> None:
        """An object, if there is not one of that name yet."""
        group = path.split("/")[2:4]
        version = "/".join(group) if path.startswith("/apis/") else group[0]
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}
        try:
            self.ask("POST", path, body)
        except HTTPError as error:
            if error.code != 409:
                raise RuntimeError(error.read().decode()) from error

    def put_secret(self, namespace: str, name: str, values: Mapping[str, str | bytes]) -> None:
        """As `kubectl create secret generic` does."""
        self.make("/api/v1/namespaces", "Namespace", namespace)
        raw = {key: one.encode() if isinstance(one, str) else one for key, one in values.items()}
        data = {key: base64.b64encode(one).decode() for key, one in raw.items()}
        self.make(f"/api/v1/namespaces/{namespace}/secrets", "Secret", name, data=data, type="Opaque")

    def allow(self, namespace: str, subject: Mapping[str, str]) -> None:
        """Reading the namespace's secrets, to a user or a service account."""
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}
        self.make(f"{path}/roles", "Role", "secret-reader", rules=[rule])
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "secret-reader"}
        name = f"reader-{subject['name']}"
        self.make(f"{path}/rolebindings", "RoleBinding", name, roleRef=role, subjects=[subject])

    def account_token(self, namespace: str, account: str) -> str:
        """A token as a pod with this service account finds one."""
        self.make(f"/api/v1/namespaces/{namespace}/serviceaccounts", "ServiceAccount", account)
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token: str = self.ask("POST", path, body)["status"]["token"]
        return token


def _started(log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=log.parent
        )


def _wait(process: subprocess.Popen[bytes], ready: Any, log: Path) -> None:
    """A process that somebody else wrote has no better signal than its answers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if ready():
                return
        except (OSError, URLError, HTTPError):
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def _etcd(folder: Path) -> Iterator[str]:
    program = find_etcd()
    assert program is not None, "etcd is not installed"
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    flags = {
        "data-dir": folder / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }
    log = folder / "etcd.log"
    process = _started(log, str(program), *(f"--{name}={value}" for name, value in flags.items()))
    try:

        def ready() -> bool:
            with urlopen(f"{client}/health", timeout=5) as answer:
                return b'"true"' in answer.read()

        _wait(process, ready, log)
        yield client
    finally:
        process.kill()
        process.wait(20)


@contextmanager
def kubernetes_server(folder: Path) -> Iterator[KubernetesServer]:
    """A running API server, ended on the way out."""
    with ExitStack() as stack:
        server = KubernetesServer(folder, stack.enter_context(_etcd(folder)))
        server.start()
        stack.callback(server.kill)
        yield server
