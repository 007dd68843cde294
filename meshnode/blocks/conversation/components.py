"""From opened components to the models of the conversation block, each with its policy."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from meshnode.components import Opened
from meshnode.interfaces import Conversation
from meshnode.resiliency import Policies, Policy

__all__ = ["Model", "build_models"]

_KIND = "Conversation"


@frozen(eq=False)
class Model:
    """One opened conversation component."""

    name: str
    driver: Conversation
    policy: Policy


def build_models(opened: Sequence[Opened], policies: Policies) -> dict[str, Model]:
    """The conversation components, by name."""
    models: dict[str, Model] = {}
    for one in opened:
        if one.planned.kind == "conversation" and one.instance is not None:
            name = one.planned.component.name
            models[name] = Model(name, one.instance, policies.for_component(name, _KIND))
    return models
