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

_PREFIX = "keyPrefix"
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
            keys = KeyPrefix(one.reserved.get(_PREFIX, ""), store=name, app_id=app_id, namespace=namespace)
        except InvalidArgument as error:
            problems.append(_problem(one, str(error), _PREFIX))
            continue
        try:
            cipher = _cipher(name, one)
        except ValueError as error:
            problems.append(_problem(one, str(error), _PRIMARY, _SECONDARY))
            continue
        stores[name] = Store(name, one.instance, keys, policies.for_component(name, "Statestore"), cipher)
    if problems:
        raise ConfigError(problems)
    return stores


def _problem(one: Opened, message: str, *about: str) -> Problem:
    """At the line of the metadata it is about."""
    component = one.planned.component
    folded = {name.lower() for name in about}
    named = [item for item in component.metadata if item.name.lower() in folded]
    line, name = (named[0].line, named[0].name) if named else (component.source.line, about[0])
    return Problem(
        f'component "{component.name}": {message}', component.source.file, line, f"spec.metadata.{name}"
    )


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
