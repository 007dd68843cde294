"""Whose certificates are believed, and which is shown. Writes files, so it is called in a thread."""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory

from meshnode.errors import ComponentError
from meshnode_secretstores_kubernetes._cluster import Cluster

__all__ = ["tls_context"]


def tls_context(cluster: Cluster) -> ssl.SSLContext:
    """Raises `ComponentError` for certificates that cannot be used."""
    try:
        context = ssl.create_default_context(cadata=cluster.authorities or None)
    except (ssl.SSLError, ValueError) as error:
        raise ComponentError("the cluster's authority holds no certificates in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cluster.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cluster.certificate:
        _load(context, cluster)
    return context


def _load(context: ssl.SSLContext, cluster: Cluster) -> None:
    """OpenSSL takes a chain from files only."""
    with TemporaryDirectory(prefix="meshnode-kubernetes-") as folder:
        paths = Path(folder, "certificate"), Path(folder, "key")
        for path, text in zip(paths, (cluster.certificate, cluster.key), strict=True):
            path.touch(mode=0o600)
            path.write_text(text)
        try:
            context.load_cert_chain(*paths)
        except (ssl.SSLError, OSError) as error:
            raise ComponentError("the client's certificate and key cannot be used") from error
