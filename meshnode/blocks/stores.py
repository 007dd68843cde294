"""From opened components to the stores of the state block: prefix, encryption keys and policy of each."""

from __future__ import annotations

from collections.abc import Sequence

from meshnode.blocks.encryption import EncryptionKey, ValueCipher
from meshnode.blocks.state import Store
from meshnode.blocks.statekeys import KeyPrefix
from meshnode.components import Opened
from meshnode.errors import ConfigError, InvalidArgument, Problem
from meshnode.resiliency import Policies

__all__ = ["build_stores"]

_PRIMARY, _SECONDARY = "primaryEncryptionKey", "secondaryEncryptionKey"


def build_stores(
    opened: Sequence[Opened], policies: Policies, app_id: str, namespace: str
) -> dict[str, Store]:
    """The state stores among the components, by name. Raises `ConfigError` for a prefix or key that cannot
    be used.
    """
    stores: dict[str, Store] = {}
    problems: list[Problem] = []
    for one in opened:
        if one.planned.kind != "state" or one.instance is None:
            continue
        name = one.planned.component.name
        try:
            stores[name] = Store(
                name=name,
                driver=one.instance,
                prefix=KeyPrefix(
                    one.reserved.get("keyPrefix", ""), store=name, app_id=app_id, namespace=namespace
                ),
                policy=policies.for_component(name, "Statestore"),
                cipher=_cipher(name, one),
            )
        except (InvalidArgument, ValueError) as error:
            source = one.planned.component.source
            problems.append(Problem(str(error), source.file, source.line, f"component {name}"))
    if problems:
        raise ConfigError(problems)
    return stores


def _cipher(store: str, one: Opened) -> ValueCipher | None:
    primary = one.reserved.get(_PRIMARY)
    if not primary:
        if one.reserved.get(_SECONDARY):
            raise ValueError(
                f"{_SECONDARY} is given without {_PRIMARY}; name the key that encrypts as {_PRIMARY}"
            )
        return None
    secondary = one.reserved.get(_SECONDARY)
    return ValueCipher(
        store, _key(one, _PRIMARY, primary), _key(one, _SECONDARY, secondary) if secondary else None
    )


def _key(one: Opened, metadata_name: str, value: str) -> EncryptionKey:
    """A key is known by the name of its secret, which is stored beside each value; so it has to come from
    one.
    """
    name = one.secret_names.get(metadata_name)
    if not name:
        raise ValueError(
            f"{metadata_name} must come from a secret (secretKeyRef), whose name is stored beside each value"
        )
    return EncryptionKey(name, value)
