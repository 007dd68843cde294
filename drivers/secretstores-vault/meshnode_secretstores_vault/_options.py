"""The metadata fields of `secretstores.hashicorp.vault`."""

from __future__ import annotations

from typing import final
from urllib.parse import urlsplit

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]


@final
@frozen
class Options:
    """Metadata of `secretstores.hashicorp.vault`."""

    address: str = option("vaultAddr", "Address of the Vault server.", default="https://127.0.0.1:8200")
    ca_pem: str = option(
        "caPem", "Certificates of the authority to trust, in PEM; before caPath and caCert.", default=""
    )
    ca_path: str = option("caPath", "Folder with files of such certificates; before caCert.", default="")
    ca_cert: str = option("caCert", "File of such certificates.", default="")
    skip_verify: bool = option("skipVerify", "Whether any certificate will do.", default=False)
    tls_server_name: str = option(
        "tlsServerName", "Name to ask the server for, and that its certificate must carry.", default=""
    )
    token_mount_path: str = option(
        "vaultTokenMountPath", "File that holds the token; this or vaultToken.", default=""
    )
    token: str = option("vaultToken", "The token.", default="", secret=True)
    prefix: str = option("vaultKVPrefix", "Folder of the secrets within the engine.", default="dapr")
    use_prefix: bool = option("vaultKVUsePrefix", "Whether that folder is put before names.", default=True)
    engine_path: str = option("enginePath", "Where the engine is mounted.", default="secret")
    value_type: str = option(
        "vaultValueType",
        "`map`: a secret has the keys it has in Vault. `text`: one value, all of them as JSON.",
        default="map",
        allowed=("map", "text"),
    )
    namespace: str = option("vaultNamespace", "Namespace of Vault Enterprise.", default="")

    def __attrs_post_init__(self) -> None:
        problems: list[Problem] = []
        if bool(self.token) == bool(self.token_mount_path):
            problems.append(
                Problem("give exactly one of vaultToken and vaultTokenMountPath", field="vaultToken")
            )
        try:
            parts = urlsplit(self.address)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
            good = good and not parts.username and parts.port != 0
        except ValueError:
            good = False
        if not good:
            problems.append(Problem("must be an address such as https://127.0.0.1:8200", field="vaultAddr"))
        if problems:
            raise ConfigError(problems)
