"""The metadata fields of `secretstores.kubernetes`, with Dapr's names."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_secretstores_kubernetes._names import is_namespace

__all__ = ["Options"]


@final
@frozen
class Options:
    """Metadata of `secretstores.kubernetes`."""

    default_namespace: str = option(
        "defaultNamespace",
        "Namespace of the secrets where neither the request nor the variable NAMESPACE names one.",
        default="",
    )
    kubeconfig_path: str = option(
        "kubeconfigPath",
        "A kubeconfig file; without it the pod's service account, or else KUBECONFIG or ~/.kube/config.",
        default="",
    )

    def __attrs_post_init__(self) -> None:
        if self.default_namespace and not is_namespace(self.default_namespace):
            message = f"{self.default_namespace!r} is no namespace"
            remedy = "small letters, digits and - are allowed"
            raise ConfigError([Problem(message, field="defaultNamespace", remedy=remedy)])
