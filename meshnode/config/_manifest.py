"""What every resource carries besides its spec: Kubernetes' object metadata. May import this package's
private modules only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from attrs import frozen

from meshnode.config._fields import yaml_field
from meshnode.config._scalars import Text

__all__ = ["API_GROUP", "ObjectMeta"]

API_GROUP = "dapr.io"


def _check_name(text: str) -> None:
    if text in ("", ".", "..") or "/" in text or "%" in text:
        raise ValueError(f'"{text}" is not a name: it may not be empty, "." or "..", nor contain "/" or "%"')


@frozen(eq=False, repr=False)
class ObjectMeta:
    """Name and namespace; the rest is what Kubernetes adds, accepted and not looked at."""

    name: Annotated[str, Text("a name", _check_name)] = yaml_field("name", "Name of the resource.")
    namespace: str = yaml_field("namespace", "Namespace the resource belongs to; any if empty.", default="")
    labels: Mapping[str, str] = yaml_field("labels", "Not looked at.", default={})
    annotations: Mapping[str, str] = yaml_field("annotations", "Not looked at.", default={})
    creation_timestamp: Any = yaml_field("creationTimestamp", "Set by Kubernetes.", default=None)
    deletion_timestamp: Any = yaml_field("deletionTimestamp", "Set by Kubernetes.", default=None)
    generate_name: Any = yaml_field("generateName", "Set by Kubernetes.", default=None)
    generation: Any = yaml_field("generation", "Set by Kubernetes.", default=None)
    resource_version: Any = yaml_field("resourceVersion", "Set by Kubernetes.", default=None)
    uid: Any = yaml_field("uid", "Set by Kubernetes.", default=None)
    self_link: Any = yaml_field("selfLink", "Set by Kubernetes.", default=None)
    finalizers: Any = yaml_field("finalizers", "Set by Kubernetes.", default=None)
    owner_references: Any = yaml_field("ownerReferences", "Set by Kubernetes.", default=None)
    managed_fields: Any = yaml_field("managedFields", "Set by Kubernetes.", default=None)
