"""From resources to what a node is going to be, all of it checked, nothing opened yet. Beside `node` at the
composition root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attrs import evolve, frozen

from meshnode.components import ComponentHost, Planned
from meshnode.config import Configuration, Resources
from meshnode.config.configuration import merged
from meshnode.config.nodeoptions import NodeOptions
from meshnode.config.subscription import Subscription
from meshnode.defaults import Naming, embedded_components, name_resolution, refuse_http_endpoints
from meshnode.errors import ConfigError, Problem
from meshnode.registry import Registry
from meshnode.resiliency import Policies
from meshnode.security.access import AccessPolicy, ApiRules
from meshnode.surroundings import Surroundings
from meshnode.unserved import HOT_RELOAD, remarks, without_denied

__all__ = ["Plan", "make_plan", "mistakes"]


@frozen
class Plan:
    """What is known of a node before anything is opened."""

    configuration: Configuration
    api_rules: ApiRules
    access: AccessPolicy
    resiliencies: tuple[str, ...]
    policies: Policies
    naming: Naming
    host: ComponentHost
    components: Sequence[Planned]
    subscriptions: Sequence[Subscription]
    notes: list[str]

    @property
    def features(self) -> tuple[str, ...]:
        """What is switched on of the features that a Configuration may switch."""
        off = any(one.name == HOT_RELOAD and not one.enabled for one in self.configuration.features or ())
        return () if off else (HOT_RELOAD,)

    @property
    def needs_asyncio(self) -> bool:
        return self.naming.driver.needs_asyncio or any(one.driver.needs_asyncio for one in self.components)


def make_plan(options: NodeOptions, resources: Resources, registry: Registry, around: Surroundings) -> Plan:
    """Everything that can be found wrong without opening anything is found wrong here, in a `ConfigError`."""
    # As in Dapr a resource's namespace counts only where the node was given one.
    namespace = options.env.get("NAMESPACE", "")
    bare = not resources.components  # a node whose components are all meant for others gets no store either
    resources = resources.for_app(options.app_id, namespace)
    problems: list[Problem] = []
    configuration = merged(resources.configurations)
    api_rules = ApiRules()
    with _collecting(problems):
        api_rules = ApiRules(configuration.api, configuration.source)
    notes = remarks(options, configuration)
    resources = without_denied(resources, configuration, notes)
    with _collecting(problems):
        refuse_http_endpoints(resources)
    policies = Policies.build((), options.app_id)
    with _collecting(problems):
        policies = Policies.build(resources.resiliencies, options.app_id, namespace, rng=around.rng)
    naming = around.naming
    with _collecting(problems):
        naming = naming or name_resolution(resources, options, registry)
    host = ComponentHost(
        registry=registry,
        policies=policies,
        app_id=options.app_id,
        namespace=options.namespace,
        env=options.env,
        wall=around.wall,
        rng=around.rng,
        lenient=options.lenient,
    )
    components: list[Planned] = []
    with _collecting(problems):
        components = host.plan(embedded_components(options, notes) if bare else resources.components)
    if problems or naming is None:
        raise ConfigError(problems)
    return Plan(
        configuration=configuration,
        api_rules=api_rules,
        access=AccessPolicy.of(configuration.access_control),
        resiliencies=tuple(one.name for one in resources.resiliencies),
        policies=policies,
        naming=naming,
        host=host,
        components=components,
        subscriptions=resources.subscriptions,
        notes=notes,
    )


def mistakes(
    options: NodeOptions,
    resources: Resources,
    around: Surroundings,
    registry: Registry,
    *,
    partial: bool = True,
) -> Sequence[Problem]:
    """What is wrong that shows without opening anything. `partial`: some resources could not be read, and
    policies may refer to what is in those.
    """
    if partial:
        resources = evolve(resources, resiliencies=())
    try:
        make_plan(options, resources, registry, around)
    except ConfigError as error:
        return error.problems
    return ()


@contextmanager
def _collecting(problems: list[Problem]) -> Iterator[None]:
    """Go on after a `ConfigError`, so that all mistakes are reported at once."""
    try:
        yield
    except ConfigError as error:
        problems.extend(error.problems)
