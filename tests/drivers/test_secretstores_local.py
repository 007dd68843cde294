"""secretstores.local.env and secretstores.local.file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshnode_secretstores_local import EnvSecrets, FileOptions, FileSecrets, env_driver, file_driver
from meshnode_secretstores_local._file import secrets_of

from meshnode.errors import ComponentError
from meshnode.interfaces import DriverContext, SecretFeature, SecretStore
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import secretstores

CONTEXT = DriverContext("secrets", "app")
ENVIRONMENT = {
    "APP_KEY": "one",
    "APP_": "empty name",
    "DAPR_API_TOKEN": "t",
    "APP_API_TOKEN": "u",
    "Other": "x",
}


SEVERAL = '{"db": {"user": "u", "password": "p"}, "plain": "text", "on": true}'


@pytest.mark.parametrize("multi_valued", [False, True])
@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_file_conforms(check: secretstores.SecretCheck, multi_valued: bool, tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(SEVERAL)
    options = FileOptions(secrets_file=str(path), multi_valued=multi_valued)
    secrets = secrets_of(SEVERAL, ":", multi_valued=multi_valued)
    assert await check.run(secretstores.Setup(lambda: file_driver.open(options, CONTEXT), secrets))


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_env_conforms(check: secretstores.SecretCheck) -> None:
    context = DriverContext("secrets", "app", env={**ENVIRONMENT, "APP_OTHER": "two"})
    options = load_options(env_driver.metadata, {"prefix": "APP_"})
    secrets = {"KEY": {"KEY": "one"}, "OTHER": {"OTHER": "two"}}
    assert await check.run(secretstores.Setup(lambda: env_driver.open(options, context), secrets))


async def test_only_a_file_of_several_values_says_that_it_has_them() -> None:
    assert FileSecrets({}, multi_valued=True).features == {SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET}
    assert FileSecrets({}).features == EnvSecrets("", {}).features == frozenset()


def test_both_are_found_by_their_entry_points() -> None:
    registry = Registry.discover()
    assert registry.driver("secretstores.local.env") is env_driver
    assert registry.driver("secretstores.local.file", "v1") is file_driver


async def test_env_gives_variables() -> None:
    store = EnvSecrets("", ENVIRONMENT)
    assert await store.get("APP_KEY", {}) == {"APP_KEY": "one"}
    assert set(await store.bulk_get({})) == {"APP_KEY", "APP_", "Other"}


@pytest.mark.parametrize("name", ["NOPE", "", "DAPR_API_TOKEN", "dapr_api_token", "APP_API_TOKEN"])
async def test_env_does_not_give_what_is_absent_or_the_nodes_own(name: str) -> None:
    with pytest.raises(KeyError):
        await EnvSecrets("", ENVIRONMENT).get(name, {})


async def test_env_prefix_is_not_a_way_around() -> None:
    store = EnvSecrets("APP_", ENVIRONMENT)
    assert await store.get("KEY", {}) == {"KEY": "one"}
    assert await store.bulk_get({}) == {"KEY": {"KEY": "one"}}
    with pytest.raises(KeyError):
        await store.get("API_TOKEN", {})
    with pytest.raises(KeyError):
        await EnvSecrets("DAPR_", ENVIRONMENT).get("API_TOKEN", {})


async def test_env_driver_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = load_options(env_driver.metadata, {"prefix": "MESHNODE_TEST_"})
    async with env_driver.open(options, CONTEXT) as store:
        monkeypatch.setenv("MESHNODE_TEST_A", "later")
        assert isinstance(store, SecretStore)
        assert await store.get("A", {}) == {"A": "later"}


NESTED = """{
    "redis": {"password": "hush", "port": 6379, "hosts": ["a", "b"]},
    "plain": "p", "on": true, "none": null
}"""


def test_file_joins_names() -> None:
    assert secrets_of(NESTED, ":", multi_valued=False) == {
        "redis:password": {"redis:password": "hush"},
        "redis:port": {"redis:port": "6379"},
        "redis:hosts:0": {"redis:hosts:0": "a"},
        "redis:hosts:1": {"redis:hosts:1": "b"},
        "plain": {"plain": "p"},
        "on": {"on": "true"},
        "none": {"none": ""},
    }


def test_file_with_several_keys_per_secret() -> None:
    assert secrets_of(NESTED, "_", multi_valued=True) == {
        "redis": {"password": "hush", "port": "6379", "hosts_0": "a", "hosts_1": "b"},
        "plain": {"plain": "p"},
        "on": {"on": "true"},
        "none": {"none": ""},
    }


async def test_file_driver(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(NESTED, encoding="utf-8-sig")
    options = load_options(FileOptions, {"secretsfile": str(path), "multiValued": "true"})
    async with file_driver.open(options, CONTEXT) as store:
        assert isinstance(store, SecretStore)
        assert (await store.get("redis", {}))["password"] == "hush"
        assert set(await store.bulk_get({})) == {"redis", "plain", "on", "none"}
        with pytest.raises(KeyError):
            await store.get("redis:password", {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "is not a JSON object"),
        ('{"secret": "hu\nsh"}', "line 1, column 15"),
        ('{"a:b": "1", "a": {"b": "2"}}', 'two values named "a:b"'),
        ("{" + '"a": {' * 70 + "}" * 71, "nested more than 64"),
        ("[" * 100_000, "cannot be used"),
    ],
)
async def test_file_that_cannot_be_used(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(content)
    with pytest.raises(ComponentError, match=r"secrets\.json") as caught:
        async with file_driver.open(FileOptions(secrets_file=str(path)), CONTEXT):
            pass
    assert said in str(caught.value)
    assert "hu" not in str(caught.value)  # No part of a secret.


async def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="No such file"):
        async with file_driver.open(FileOptions(secrets_file=str(tmp_path / "x.json")), CONTEXT):
            pass


leaves = st.none() | st.booleans() | st.integers() | st.text()
trees = st.dictionaries(
    st.text(max_size=3),
    st.recursive(leaves, lambda c: st.lists(c) | st.dictionaries(st.text(max_size=3), c), max_leaves=12),
    max_size=4,
)


@given(trees, st.booleans())
def test_every_value_has_one_name(tree: object, multi_valued: bool) -> None:
    """As many texts come out as leaves go in, or the file is refused because two names are the same."""

    def count(node: object) -> int:
        if isinstance(node, dict):
            return sum(map(count, node.values()))
        return sum(map(count, node)) if isinstance(node, list) else 1

    try:
        secrets = secrets_of(json.dumps(tree), ":", multi_valued=multi_valued)
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
        assert sum(map(len, secrets.values())) == count(tree)
    assert not refused or "two values" in refused
