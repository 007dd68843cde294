"""References in component metadata: secrets, environment variables, templates."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest

from meshnode.config import Component, MetadataItem, SecretKeyRef, Source, resolve_metadata
from meshnode.config.secrets import env_allowed, fill_templates
from meshnode.errors import ComponentUnavailable, ConfigError, Problem

ENV = {"REDIS_USER": "me", "EMPTY": "", "DAPR_API_TOKEN": "t", "APP_API_TOKEN": "u", "POD_NAME": "pod-1"}


class Vault:
    """A store that counts how often it is asked."""

    def __init__(self, **secrets: Mapping[str, str]) -> None:
        self.secrets = secrets
        self.asked: list[tuple[str, str]] = []

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        self.asked.append((name, metadata["namespace"]))
        if name == "down":
            raise ComponentUnavailable("vault is sealed")
        return self.secrets[name]


def component(*items: MetadataItem, store: str = "vault") -> Component:
    return Component(
        name="statestore",
        type="state.redis",
        namespace="prod",
        metadata=items,
        auth_secret_store=store,
        source=Source("c.yaml", 1),
    )


def secret(name: str, key: str = "", item: str = "redisPassword", line: int = 7) -> MetadataItem:
    return MetadataItem(item, secret_key_ref=SecretKeyRef(name=name, key=key), line=line)


async def test_values_come_from_everywhere() -> None:
    vault = Vault(redis={"password": "hush{uuid}", "user": "root"}, plain={"plain": "p"})
    items = (
        MetadataItem("redisHost", "localhost"),
        secret("redis", "password"),
        secret("redis", "user", "redisUsername"),
        secret("plain", item="plain"),
        MetadataItem("fromEnv", env_ref="REDIS_USER"),
        MetadataItem("empty", env_ref="EMPTY"),
    )
    assert await resolve_metadata(component(*items), {"vault": vault}, ENV) == (
        ("redisHost", "localhost"),
        ("redisPassword", "hush{uuid}"),
        ("redisUsername", "root"),
        ("plain", "p"),
        ("fromEnv", "me"),
        ("empty", ""),
    )
    assert vault.asked == [("redis", "prod"), ("plain", "prod")]


@pytest.mark.parametrize(
    ("item", "store", "message", "remedy"),
    [
        (
            secret("redis", "password"),
            "",
            'refers to the secret "redis", but no secret store is named',
            "set auth.secretStore to the name of a secret store component",
        ),
        (
            secret("redis", "password"),
            "valt",
            'no secret store "valt" is loaded',
            'did you mean "vault"? allowed: vault',
        ),
        (
            secret("redsi", "password"),
            "vault",
            'no secret "redsi" in the store "vault"',
            "add it to vault, or correct secretKeyRef.name",
        ),
        (
            secret("redis", "pasword"),
            "vault",
            'the secret "redis" in the store "vault" has no key "pasword"',
            'did you mean "password"? allowed: password',
        ),
        (secret("down"), "vault", 'the store "vault" cannot give the secret "down": vault is sealed', ""),
        (
            MetadataItem("redisPassword", env_ref="NOPE", line=7),
            "",
            "the environment variable NOPE is not set",
            "set NOPE before the node starts",
        ),
        (
            MetadataItem("redisPassword", env_ref="DAPR_API_TOKEN", line=7),
            "",
            "the environment variable DAPR_API_TOKEN may not be read",
            "choose another name",
        ),
        (
            MetadataItem("redisPassword", "{podName}", line=7),
            "",
            "uses {podName}, which has no value here",
            "",
        ),
    ],
)
async def test_references_that_lead_nowhere(
    item: MetadataItem, store: str, message: str, remedy: str
) -> None:
    vault = Vault(redis={"password": "x"})
    with pytest.raises(ConfigError) as caught:
        await resolve_metadata(component(item, store=store), {"vault": vault}, {"DAPR_API_TOKEN": "t"})
    text = f'component "statestore": {message}'
    assert caught.value.problems == (Problem(text, "c.yaml", 7, "spec.metadata.redisPassword", remedy),)


async def test_all_of_them_are_reported() -> None:
    items = (secret("a"), secret("b", line=9), MetadataItem("c", env_ref="NOPE", line=11))
    with pytest.raises(ConfigError) as caught:
        await resolve_metadata(component(*items), {"vault": Vault()}, {})
    assert [problem.line for problem in caught.value.problems] == [7, 9, 11]


@pytest.mark.parametrize("name", ["", "DAPR_HOST", "dapr_host", "APP_API_TOKEN", "app_api_token", "A B"])
def test_variables_that_belong_to_the_node(name: str) -> None:
    assert not env_allowed(name, {})


def test_a_list_of_variables_allows_only_those() -> None:
    env = {"DAPR_ENV_KEYS": "REDIS_USER OTHER"}
    assert env_allowed("redis_user", env)
    assert env_allowed("OTHER", env)
    assert not env_allowed("REDIS", env)
    assert env_allowed("REDIS", {})


async def test_templates_in_values() -> None:
    items = (
        MetadataItem("consumerID", "{appID}-{podName}"),
        MetadataItem("clientId", "{namespace}"),
        MetadataItem("id", "{uuid}/{uuid}"),
        MetadataItem("other", "{unknown} {"),
    )
    found = dict(
        await resolve_metadata(
            component(*items), {}, ENV, app_id="orders", namespace="prod", rng=random.Random(1)
        )
    )
    first, second = found["id"].split("/")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first)
    assert first != second
    assert (found["consumerID"], found["clientId"], found["other"]) == (
        "orders-pod-1",
        "prod.orders",
        "{unknown} {",
    )


def test_templates_are_reproducible_with_a_seed() -> None:
    assert fill_templates("{uuid}", {}, random.Random(7)) == fill_templates("{uuid}", {}, random.Random(7))
    assert fill_templates("{uuid}", {}) != fill_templates("{uuid}", {})
