"""A component's metadata with every reference resolved: secrets, environment variables, templates.

The rules are Dapr's: `secretKeyRef` is looked up in the store that `auth.secretStore` names, `envRef` in the
environment except for what belongs to the node itself, and `{uuid}`, `{podName}`, `{namespace}` and `{appID}`
in values are filled in. Unlike there, a reference that leads nowhere is a problem and not an empty value. May
import this package and `meshnode.errors`.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Collection, Mapping
from typing import Protocol, final

from meshnode.config._problems import did_you_mean
from meshnode.config.component import Component, MetadataItem, SecretKeyRef
from meshnode.errors import ConfigError, MeshError, Problem

__all__ = ["SecretSource", "env_allowed", "fill_templates", "reference_problems", "resolve_metadata"]

_TEMPLATE = re.compile(r"\{(uuid|podName|namespace|appID)\}")
_MASK = "DAPR_ENV_KEYS"


class SecretSource(Protocol):
    """The part of a secret store that is needed here; `meshnode.interfaces.SecretStore` fulfils it."""

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]: ...


async def resolve_metadata(
    component: Component,
    stores: Mapping[str, SecretSource],
    env: Mapping[str, str],
    *,
    app_id: str = "",
    namespace: str = "",
    rng: random.Random | None = None,
) -> tuple[tuple[str, str], ...]:
    """Name and value of each metadata item. Raises `ConfigError` with every reference that cannot be
    followed.
    """
    resolver = _Resolver(component, stores, env)
    pairs = [(item.name, await resolver.value(item)) for item in component.metadata]
    if resolver.problems:
        raise ConfigError(resolver.problems)
    values = _template_values(env, app_id, namespace)
    filled: list[tuple[str, str]] = []
    for item, (name, value) in zip(component.metadata, pairs, strict=True):
        try:
            # Only what stands in the file is a template: a password may contain "{uuid}".
            filled.append((name, fill_templates(value, values, rng) if item.value is not None else value))
        except ValueError as error:
            resolver.problem(item, str(error))
    if resolver.problems:
        raise ConfigError(resolver.problems)
    return tuple(filled)


def _template_values(env: Mapping[str, str], app_id: str, namespace: str) -> dict[str, str]:
    """`{namespace}` is Dapr's `namespace.app-id`, so that consumers in different namespaces differ."""
    return {"podName": env.get("POD_NAME", ""), "namespace": f"{namespace}.{app_id}", "appID": app_id}


def fill_templates(text: str, values: Mapping[str, str], rng: random.Random | None = None) -> str:
    """Raises `ValueError` where a template has no value here."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "uuid":
            return str(uuid.UUID(int=(rng or random.SystemRandom()).getrandbits(128), version=4))
        if not values.get(name):
            raise ValueError(f"uses {{{name}}}, which has no value here")
        return values[name]

    return _TEMPLATE.sub(value, text)


def env_allowed(name: str, env: Mapping[str, str]) -> bool:
    """Whether `envRef` may read a variable: not the node's own ones, and only the listed ones where a list is
    given.
    """
    folded = name.upper()
    if not folded or folded == "APP_API_TOKEN" or folded.startswith("DAPR_") or " " in folded:
        return False
    mask = env.get(_MASK, "")
    return not mask or folded in mask.split(" ")


def reference_problems(
    component: Component, stores: Collection[str] | None, env: Mapping[str, str]
) -> list[Problem]:
    """What is wrong with references that nobody follows. `stores` are the names of the secret stores there
    are, None where that is not known.
    """
    found = [(item, _misdirected(component, item, stores, env)) for item in component.metadata]
    return [_problem(component, item, *mistake) for item, mistake in found if mistake is not None]


def _misdirected(
    component: Component, item: MetadataItem, stores: Collection[str] | None, env: Mapping[str, str]
) -> tuple[str, str] | None:
    """A sentence and its remedy where a reference cannot lead anywhere."""
    if item.env_ref is not None and not env_allowed(item.env_ref, env):
        return f"the environment variable {item.env_ref} may not be read", "choose another name"
    if item.secret_key_ref is None:
        return None
    store = component.auth_secret_store
    if not store:
        message = f'refers to the secret "{item.secret_key_ref.name}", but no secret store is named'
        return message, "set auth.secretStore to the name of a secret store component"
    if stores is not None and store not in stores:
        hint = did_you_mean(store, stores) or "add a component of type secretstores.…"
        return f'no secret store "{store}" is loaded', hint
    return None


def _problem(component: Component, item: MetadataItem, message: str, remedy: str = "") -> Problem:
    source = component.source
    text = f'component "{component.name}": {message}'
    return Problem(text, source.file, item.line or source.line, f"spec.metadata.{item.name}", remedy)


@final
class _Resolver:
    """The references of one component; a secret is fetched once, however many of its keys are used."""

    def __init__(
        self, component: Component, stores: Mapping[str, SecretSource], env: Mapping[str, str]
    ) -> None:
        self._component = component
        self._stores = stores
        self._env = env
        self._fetched: dict[str, Mapping[str, str] | None] = {}
        self.problems: list[Problem] = []

    def problem(self, item: MetadataItem, message: str, remedy: str = "") -> str:
        self.problems.append(_problem(self._component, item, message, remedy))
        return ""

    async def value(self, item: MetadataItem) -> str:
        """Empty after a problem."""
        mistake = _misdirected(self._component, item, self._stores, self._env)
        if mistake is not None:
            return self.problem(item, *mistake)
        if item.secret_key_ref is not None:
            return await self._secret(item, item.secret_key_ref)
        if item.env_ref is not None:
            return self._variable(item, item.env_ref)
        return item.value or ""

    def _variable(self, item: MetadataItem, name: str) -> str:
        if name not in self._env:
            return self.problem(
                item, f"the environment variable {name} is not set", f"set {name} before the node starts"
            )
        return self._env[name]

    async def _secret(self, item: MetadataItem, ref: SecretKeyRef) -> str:
        store = self._component.auth_secret_store
        if ref.name not in self._fetched:
            self._fetched[ref.name] = await self._fetch(item, ref.name, store)
        data = self._fetched[ref.name]
        if data is None:
            return ""
        key = ref.key or ref.name
        if key not in data:
            hint = did_you_mean(key, data) or f"add the key to the secret in {store}"
            return self.problem(
                item, f'the secret "{ref.name}" in the store "{store}" has no key "{key}"', hint
            )
        return data[key]

    async def _fetch(self, item: MetadataItem, name: str, store: str) -> Mapping[str, str] | None:
        metadata = {"namespace": self._component.namespace}
        try:
            return await self._stores[store].get(name, metadata)
        except KeyError:
            self.problem(
                item,
                f'no secret "{name}" in the store "{store}"',
                f"add it to {store}, or correct secretKeyRef.name",
            )
        except MeshError as error:
            self.problem(item, f'the store "{store}" cannot give the secret "{name}": {error}')
        return None
