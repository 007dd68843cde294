"""The crypto components of a node, and the errors of the reference around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from attrs import frozen

from meshnode.components import Opened
from meshnode.errors import ErrorInfoDetail, InvalidArgument, MeshError, ResourceInfoDetail, Status
from meshnode.interfaces import CryptoProvider
from meshnode.resiliency import Policies, Policy

__all__ = [
    "CryptoProviders",
    "Provider",
    "bad_request",
    "build_providers",
    "nothing_sent",
    "operation_failed",
]


@frozen(eq=False)
class Provider:
    """One opened crypto component. `policy` is its outbound policy."""

    name: str
    driver: CryptoProvider
    policy: Policy


@final
class CryptoProviders:
    """All crypto components of one node, by name."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    def find(self, name: str) -> Provider:
        """The component of that name. Raises `InvalidArgument` for a name that is missing or unknown; with
        no component at all the answer is INTERNAL, as in Dapr.
        """
        if not self._providers:
            raise MeshError(
                "crypto providers not configured",
                ErrorInfoDetail("ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED"),
                status=Status.INTERNAL,
            )
        if not name:
            raise bad_request("missing component name")
        provider = self._providers.get(name)
        if provider is None:
            raise InvalidArgument(
                f"crypto provider {name} not found",
                ErrorInfoDetail("ERR_CRYPTO_PROVIDER_NOT_FOUND"),
                ResourceInfoDetail("crypto", name),
            )
        return provider


def build_providers(opened: Sequence[Opened], policies: Policies) -> dict[str, Provider]:
    """The crypto components among all of them, by name."""
    found = {}
    for one in opened:
        if one.planned.kind == "crypto" and one.instance is not None:
            name = one.planned.component.name
            found[name] = Provider(name, one.instance, policies.for_component(name, "Crypto"))
    return found


def bad_request(why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid request: {why}", ErrorInfoDetail("ERR_BAD_REQUEST"))


def nothing_sent() -> MeshError:
    """For a stream of documents that ended before its first message."""
    message = "failed to perform operation: error receiving the first message: EOF"
    return MeshError(message, ErrorInfoDetail("ERR_CRYPTO"), status=Status.INTERNAL)


def operation_failed(component: str, why: str) -> MeshError:
    """INTERNAL, whatever it was, as the reference answers."""
    return MeshError(
        f"failed to perform operation: {why}",
        ErrorInfoDetail("ERR_CRYPTO"),
        ResourceInfoDetail("crypto", component),
        status=Status.INTERNAL,
    )
