"""The Component resource as a node uses it: what is opened, with which metadata, for which applications.

Its manifest is in `componentfile`. Imports attrs and this package's values only: on the start-up path.
"""

from __future__ import annotations

from attrs import field, frozen

from meshnode.config._fields import yaml_field
from meshnode.config.source import Source

__all__ = ["DEFAULT_INIT_TIMEOUT", "Component", "MetadataItem", "SecretKeyRef"]

DEFAULT_INIT_TIMEOUT = 5.0


@frozen
class SecretKeyRef:
    """A value in a secret store: the secret's name and the key within it (the name itself where none is
    given).
    """

    name: str = yaml_field("name", "Name of the secret.")
    key: str = yaml_field(
        "key", "Key within the secret; the secret's name if it has a single value.", default=""
    )


@frozen
class MetadataItem:
    """One name with exactly one of a value, a secret reference and an environment variable."""

    name: str
    value: str | None = None
    secret_key_ref: SecretKeyRef | None = None
    env_ref: str | None = None
    line: int = field(default=0, eq=False)


@frozen
class Component:
    name: str
    type: str
    version: str = "v1"
    namespace: str = ""
    metadata: tuple[MetadataItem, ...] = ()
    scopes: tuple[str, ...] = ()
    ignore_errors: bool = False
    init_timeout: float = DEFAULT_INIT_TIMEOUT
    auth_secret_store: str = ""
    source: Source = field(default=Source(), eq=False)

    def get(self, name: str) -> MetadataItem | None:
        """The metadata item of that name, without regard to case."""
        folded = name.lower()
        return next((item for item in reversed(self.metadata) if item.name.lower() == folded), None)
