"""The settings of `nameresolution.consul`, with Dapr's names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_nameresolution_consul import _shapes as shapes

__all__ = ["ConsulOptions"]

_NOTHING: Mapping[str, Any] = {}


@final
@frozen
class ConsulOptions:
    """What stands below `spec.nameResolution.configuration`."""

    client: Mapping[str, Any] = option(
        "client",
        "How to reach the agent: address, scheme, datacenter, httpAuth, waitTime, token, tokenFile,"
        " tlsConfig. What is missing comes from CONSUL_HTTP_ADDR and its like, or is http://127.0.0.1:8500.",
        default=_NOTHING,
        secret=True,
    )
    query_options: Mapping[str, Any] | None = option(
        "queryOptions",
        "How lookups are made: datacenter, filter, near, nodeMeta, allowStale, token, …; without it useCache:"
        " the agent answers from its cache.",
        default=None,
        secret=True,
    )
    checks: tuple[Mapping[str, Any], ...] = option(
        "checks",
        "Health checks to register; without any, one that the node itself keeps passing.",
        default=(),
    )
    tags: tuple[str, ...] = option("tags", "Tags to register.", default=())
    meta: Mapping[str, Any] = option("meta", "Metadata to register.", default=_NOTHING)
    dapr_port_meta_key: str = option(
        "daprPortMetaKey", "Where a service's metadata has the port that nodes call.", default="DAPR_PORT"
    )
    self_register: bool = option("selfRegister", "Whether this node registers itself.", default=False)
    self_deregister: bool = option(
        "selfDeregister", "Whether it takes its registration out when it leaves.", default=False
    )
    use_cache: bool = option(
        "useCache",
        "Whether this node keeps answers, and hears from the agent when they change.",
        default=False,
    )
    advanced_registration: Mapping[str, Any] | None = option(
        "advancedRegistration",
        "The whole registration as Consul's API takes it; checks, tags, meta and selfRegister do not count"
        " then.",
        default=None,
    )

    def __attrs_post_init__(self) -> None:
        problems: list[Problem] = []
        shapes.read(shapes.CLIENT, self.client, "client", problems)
        shapes.read(shapes.QUERY, self.query_options or {}, "queryOptions", problems)
        shapes.read_all(shapes.CHECK, self.checks, "checks", problems)
        if self.advanced_registration is not None:
            found = shapes.read(
                shapes.REGISTRATION, self.advanced_registration, "advancedRegistration", problems
            )
            if not found.get("Name"):
                problems.append(Problem("is missing", field="advancedRegistration.name"))
        if not self.dapr_port_meta_key:
            problems.append(Problem("is empty", field="daprPortMetaKey"))
        if problems:
            raise ConfigError(problems)

    @property
    def registers(self) -> bool:
        return self.self_register or self.advanced_registration is not None
