"""What a node was given in files, as one value. Imports attrs only: on the start-up path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

if TYPE_CHECKING:
    from meshnode.config.component import Component
    from meshnode.config.configuration import Configuration
    from meshnode.config.httpendpoint import HTTPEndpoint
    from meshnode.config.resiliency import Resiliency
    from meshnode.config.subscription import Subscription
    from meshnode.errors import Problem

__all__ = ["Resources"]


@frozen
class Resources:
    """Everything read, in the order of the files. `warnings` were logged already."""

    components: tuple[Component, ...] = ()
    configurations: tuple[Configuration, ...] = ()
    resiliencies: tuple[Resiliency, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    http_endpoints: tuple[HTTPEndpoint, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def for_app(self, app_id: str, namespace: str = "") -> Resources:
        """Only what is meant for this application: by `scopes`, and by namespace where both sides have one,
        as in Dapr.
        """

        def meant(one: Component | Resiliency | Subscription | HTTPEndpoint) -> bool:
            same = not (namespace and one.namespace) or one.namespace == namespace
            return same and (not one.scopes or app_id in one.scopes)

        return evolve(
            self,
            components=tuple(one for one in self.components if meant(one)),
            resiliencies=tuple(one for one in self.resiliencies if meant(one)),
            subscriptions=tuple(one for one in self.subscriptions if meant(one)),
            http_endpoints=tuple(one for one in self.http_endpoints if meant(one)),
        )
