"""Secrets, locks, configuration and metadata at a daprd and at a meshnode, request by request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dapr.proto.runtime.v1 import configuration_pb2, lock_pb2, metadata_pb2, secret_pb2
from support.install_daprd import find_daprd
from support.redis_servers import RedisServer, find_redis_server, redis_server
from support.sidecars import Allowed, Case, Pair, compare, sidecars

pytestmark = [
    pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed"),
    pytest.mark.skipif(find_redis_server() is None, reason="redis-server is not installed"),
]

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: "HOME/secrets.json"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec:
  type: lock.redis
  version: v1
  metadata: [{name: redisHost, value: "ADDRESS"}, {name: redisDB, value: "LOCKS"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec:
  type: configuration.redis
  version: v1
  metadata: [{name: redisHost, value: "ADDRESS"}, {name: redisDB, value: "DATABASE"}]
"""
CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  nameResolution: {component: sqlite, version: v1, configuration: {connectionString: "HOME/names.db"}}
  secrets:
    scopes: [{storeName: files, deniedSecrets: [private]}]
"""
SECRETS = {"db": {"user": "u", "password": "p"}, "plain": "text", "private": "hidden"}


def secret(store: str, key: str) -> secret_pb2.GetSecretRequest:
    return secret_pb2.GetSecretRequest(store_name=store, key=key)


def lock(store: str, resource: str, owner: str, seconds: int) -> lock_pb2.TryLockRequest:
    return lock_pb2.TryLockRequest(
        store_name=store, resource_id=resource, lock_owner=owner, expiry_in_seconds=seconds
    )


def held(resource: str) -> list[tuple[str, lock_pb2.TryLockRequest]]:
    return [("TryLockAlpha1", lock("locks", resource, "me", 60))]


def unlock(store: str, resource: str, owner: str) -> lock_pb2.UnlockRequest:
    return lock_pb2.UnlockRequest(store_name=store, resource_id=resource, lock_owner=owner)


def settings(store: str, *keys: str) -> configuration_pb2.GetConfigurationRequest:
    return configuration_pb2.GetConfigurationRequest(store_name=store, keys=keys)


def watch(store: str, *keys: str) -> configuration_pb2.SubscribeConfigurationRequest:
    return configuration_pb2.SubscribeConfigurationRequest(store_name=store, keys=keys)


def unwatch(store: str, name: str) -> configuration_pb2.UnsubscribeConfigurationRequest:
    return configuration_pb2.UnsubscribeConfigurationRequest(store_name=store, id=name)


SECRET_CASES = [
    Case("secret", "GetSecret", secret("files", "plain")),
    Case("secret, nested", "GetSecret", secret("files", "db:user")),
    Case("secret, the nest itself", "GetSecret", secret("files", "db")),
    Case("secret, unknown store", "GetSecret", secret("unknown", "plain")),
    Case("secret, empty store", "GetSecret", secret("", "plain")),
    Case("secret, unknown key", "GetSecret", secret("files", "nothing")),
    Case("secret, empty key", "GetSecret", secret("files", "")),
    Case("secret, denied", "GetSecret", secret("files", "private")),
    Case("secrets in bulk", "GetBulkSecret", secret_pb2.GetBulkSecretRequest(store_name="files")),
    Case(
        "secrets in bulk, unknown store",
        "GetBulkSecret",
        secret_pb2.GetBulkSecretRequest(store_name="unknown"),
    ),
]
LOCK_CASES = [
    Case(
        "lock",
        "TryLockAlpha1",
        lock("locks", "a", "me", 60),
        Allowed(
            "a fencing token goes with every lock that was taken",
            {"headers": {"meshnode-fencing-token": "TOKEN"}},
        ),
    ),
    Case("lock, taken", "TryLockAlpha1", lock("locks", "b", "you", 60), before=held("b")),
    Case("lock, taken by itself", "TryLockAlpha1", lock("locks", "c", "me", 60), before=held("c")),
    Case("lock, unknown store", "TryLockAlpha1", lock("unknown", "a", "me", 60)),
    Case("lock, empty store", "TryLockAlpha1", lock("", "a", "me", 60)),
    Case("lock, empty resource", "TryLockAlpha1", lock("locks", "", "me", 60)),
    Case("lock, empty owner", "TryLockAlpha1", lock("locks", "a", "", 60)),
    Case("lock, no expiry", "TryLockAlpha1", lock("locks", "a", "me", 0)),
    Case("lock, negative expiry", "TryLockAlpha1", lock("locks", "a", "me", -1)),
    Case("lock, everything wrong", "TryLockAlpha1", lock("unknown", "", "", 0)),
    Case("lock, illegal resource", "TryLockAlpha1", lock("locks", "a||b", "me", 60)),
    Case("unlock", "UnlockAlpha1", unlock("locks", "d", "me"), before=held("d")),
    Case("unlock, somebody else's", "UnlockAlpha1", unlock("locks", "e", "you"), before=held("e")),
    Case("unlock, no such lock", "UnlockAlpha1", unlock("locks", "nothing", "me")),
    Case("unlock, unknown store", "UnlockAlpha1", unlock("unknown", "a", "me")),
    Case("unlock, empty resource", "UnlockAlpha1", unlock("locks", "", "me")),
    Case("unlock, empty owner", "UnlockAlpha1", unlock("locks", "a", "")),
    Case("unlock, illegal resource", "UnlockAlpha1", unlock("locks", "a||b", "me")),
]
CONFIGURATION_CASES = [
    case
    for alpha in ("", "Alpha1")
    for case in (
        Case(f"configuration{alpha}", f"GetConfiguration{alpha}", settings("settings", "colour", "size")),
        Case(f"configuration{alpha}, no keys", f"GetConfiguration{alpha}", settings("settings")),
        Case(
            f"configuration{alpha}, unknown keys", f"GetConfiguration{alpha}", settings("settings", "nothing")
        ),
        Case(f"configuration{alpha}, empty key", f"GetConfiguration{alpha}", settings("settings", "")),
        Case(f"configuration{alpha}, unknown store", f"GetConfiguration{alpha}", settings("unknown", "a")),
        Case(f"configuration{alpha}, empty store", f"GetConfiguration{alpha}", settings("", "a")),
        Case(f"subscribe{alpha}, unknown store", f"SubscribeConfiguration{alpha}", watch("unknown", "a")),
        Case(f"unsubscribe{alpha}, unknown id", f"UnsubscribeConfiguration{alpha}", unwatch("settings", "x")),
        Case(f"unsubscribe{alpha}, empty id", f"UnsubscribeConfiguration{alpha}", unwatch("settings", "")),
        Case(
            f"unsubscribe{alpha}, unknown store", f"UnsubscribeConfiguration{alpha}", unwatch("unknown", "x")
        ),
    )
]
NO_KEY = Allowed(
    "an entry without a name is a mistake of the caller's",
    {
        "status": "INVALID_ARGUMENT",
        "message": "metadata key must not be empty",
        "details": [
            ("BadRequest", {"field_violations": [{"field": "key", "description": "must not be empty"}]})
        ],
        "response": None,
    },
)
METADATA_CASES = [
    Case("metadata, set", "SetMetadata", metadata_pb2.SetMetadataRequest(key="a", value="b")),
    Case("metadata, set empty", "SetMetadata", metadata_pb2.SetMetadataRequest(key="", value="b"), NO_KEY),
]
NONE = [
    Case("secret", "GetSecret", secret("files", "plain")),
    Case("secrets in bulk", "GetBulkSecret", secret_pb2.GetBulkSecretRequest(store_name="files")),
    Case("lock", "TryLockAlpha1", lock("locks", "a", "me", 60)),
    Case("lock, everything wrong", "TryLockAlpha1", lock("", "", "", 0)),
    Case("unlock", "UnlockAlpha1", unlock("locks", "a", "me")),
    Case("configuration", "GetConfiguration", settings("settings", "a")),
    Case("subscribe", "SubscribeConfiguration", watch("settings", "a")),
    Case("unsubscribe", "UnsubscribeConfiguration", unwatch("settings", "x")),
]
NO_STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec: {type: state.in-memory, version: v1, metadata: []}
"""


def prepared(home: Path, redis: RedisServer, side: str) -> str:
    """The resources of one side, with what its stores hold."""
    database, locks = ("0", "2") if side == "daprd" else ("1", "3")
    (home / "secrets.json").write_text(json.dumps(SECRETS))
    script = "redis.call('SELECT', ARGV[1]); return redis.call('MSET', 'colour', 'red||1', 'size', '12')"
    redis.command("EVAL", script, "0", database)
    text = RESOURCES.replace("HOME", str(home)).replace("ADDRESS", redis.address)
    return text.replace("DATABASE", database).replace("LOCKS", locks)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("interop-blocks")
    with (
        redis_server(home / "redis") as redis,
        sidecars(home, lambda side: prepared(home, redis, side), configuration=CONFIGURATION) as pair,
    ):
        yield pair


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-bare"), NO_STORE) as pair:
        yield pair


@pytest.mark.parametrize("case", [*SECRET_CASES, *LOCK_CASES, *CONFIGURATION_CASES, *METADATA_CASES], ids=str)
def test_request(full: Pair, case: Case) -> None:
    compare(full, case)


@pytest.mark.parametrize("case", NONE, ids=str)
def test_no_component(bare: Pair, case: Case) -> None:
    compare(bare, case)
