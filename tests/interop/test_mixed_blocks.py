"""Locks, configuration, secrets and keys behind both sidecars at once."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis as redis_client
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import configuration_pb2, crypto_pb2, dapr_pb2_grpc, lock_pb2, secret_pb2
from support.daprd_servers import daprd
from support.install_daprd import find_daprd
from support.postgres_servers import PostgresServer, find_postgres, postgres_server
from support.processes import node
from support.redis_servers import find_redis_server, redis_server

pytestmark = pytest.mark.skipif(
    find_daprd() is None or find_redis_server() is None or find_postgres() is None,
    reason="daprd, redis-server or PostgreSQL is not installed",
)
SIDECARS = ("daprd", "node")
TABLE = """
CREATE TABLE configtable (
    key VARCHAR NOT NULL, value VARCHAR NOT NULL, version VARCHAR NOT NULL, metadata JSON
);
CREATE FUNCTION notify_event() RETURNS TRIGGER AS $$
DECLARE changed json;
BEGIN
    IF TG_OP = 'DELETE' THEN changed = row_to_json(OLD); ELSE changed = row_to_json(NEW); END IF;
    PERFORM pg_notify(
        'config', json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', changed)::text
    );
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER config AFTER INSERT OR UPDATE OR DELETE ON configtable
    FOR EACH ROW EXECUTE FUNCTION notify_event();
"""
SECRETS = {"plain": "hush", "redis": {"password": "deep", "ports": [1, 2], "more": {"x": True}}, "n": 7}
NUMBER = {"nested": {"n": "%!s(float64=7)"}, "several": None}
"""What a daprd makes of a number: a slip of formatting, and nothing. Ours is as in JSON."""


@frozen
class Shared:
    daprd: Any
    node: Any
    redis: redis_client.Redis
    postgres: PostgresServer

    def of(self, name: str) -> Any:
        return getattr(self, name)


def component(name: str, kind: str, **metadata: str) -> str:
    items = [{"name": key, "value": value} for key, value in metadata.items()]
    spec = {"type": kind, "version": "v1", "metadata": items}
    return json.dumps(
        {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "spec": spec}
    )


def symmetric(kid: str, size: int) -> dict[str, str]:
    key = base64.urlsafe_b64encode(bytes(range(size))).decode().rstrip("=")
    return {"kid": kid, "kty": "oct", "k": key}


def resources(home: Path, redis: str, postgres: str) -> str:
    keys = home / "keys"
    keys.mkdir()
    pair = rsa.generate_private_key(65537, 2048)
    (keys / "rsa.pem").write_bytes(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (keys / "aes").write_bytes(bytes(range(32)))
    (home / "set.json").write_text(json.dumps({"keys": [symmetric("aes", 32)]}))
    (home / "secrets.json").write_text(json.dumps(SECRETS))
    file = str(home / "secrets.json")
    return "\n---\n".join(
        [
            component("locks", "lock.redis", redisHost=redis),
            component("rconf", "configuration.redis", redisHost=redis, redisDB="1"),
            component("pconf", "configuration.postgresql", connectionString=postgres, table="configtable"),
            component("nested", "secretstores.local.file", secretsFile=file, nestedSeparator="/"),
            component("several", "secretstores.local.file", secretsFile=file, multiValued="true"),
            component("files", "crypto.dapr.localstorage", path=str(keys)),
            component("keyset", "crypto.dapr.jwks", jwks=str(home / "set.json")),
        ]
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    home = tmp_path_factory.mktemp("shared")
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(home))
        postgres = stack.enter_context(postgres_server())
        postgres.rows(TABLE)
        text = resources(home, redis.address, postgres.url)
        theirs = stack.enter_context(daprd("daprd", home, resources=text))
        ours = stack.enter_context(node("node", home, resources=text))
        stubs = [
            dapr_pb2_grpc.DaprStub(stack.enter_context(grpc.insecure_channel(at)))  # type: ignore[no-untyped-call]
            for at in (theirs.address, ours.address)
        ]
        client = redis_client.Redis(port=redis.port, db=1)
        stack.callback(client.close)
        yield Shared(*stubs, client, postgres)


def code_of(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=20)
    error: Any = caught.value
    return error.code().name, error.details()


# --- lock.redis


def lock(stub: Any, resource: str, owner: str, seconds: int = 60) -> bool:
    request = lock_pb2.TryLockRequest(
        store_name="locks", resource_id=resource, lock_owner=owner, expiry_in_seconds=seconds
    )
    return bool(stub.TryLockAlpha1(request, timeout=20).success)


def unlock(stub: Any, resource: str, owner: str) -> str:
    request = lock_pb2.UnlockRequest(store_name="locks", resource_id=resource, lock_owner=owner)
    return str(lock_pb2.UnlockResponse.Status.Name(stub.UnlockAlpha1(request, timeout=20).status))


def test_applications_of_other_names_have_other_locks(shared: Shared) -> None:
    """The prefix is the app id on both, so the two do not meet in the same lock."""
    assert lock(shared.daprd, "one", "ann")
    assert lock(shared.node, "one", "bob")
    assert [unlock(shared.node, "one", "ann"), unlock(shared.node, "one", "bob")] == [
        "LOCK_BELONGS_TO_OTHERS", "SUCCESS",
    ]  # fmt: skip
    assert unlock(shared.daprd, "one", "ann") == "SUCCESS"


@pytest.mark.parametrize(
    ("resource", "owner", "seconds"), [("", "o", 1), ("r", "", 1), ("r", "o", 0), ("a||b", "o", 1)]
)
def test_requests_for_locks_that_are_refused(shared: Shared, resource: str, owner: str, seconds: int) -> None:
    for store in ("locks", "ghost"):
        request = lock_pb2.TryLockRequest(
            store_name=store, resource_id=resource, lock_owner=owner, expiry_in_seconds=seconds
        )
        ours, theirs = (code_of(stub.TryLockAlpha1, request) for stub in (shared.node, shared.daprd))
        assert ours == theirs


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two sidecars of one app id, so of the same locks."""
    home = tmp_path_factory.mktemp("twins")
    with redis_server(home) as redis, ExitStack() as stack:
        text = component("locks", "lock.redis", redisHost=redis.address)
        found = {}
        for name, start in (("daprd", daprd), ("node", node)):
            running: Any = stack.enter_context(start("shop", home, resources=text))  # type: ignore[operator]
            channel = stack.enter_context(grpc.insecure_channel(running.address))
            found[name] = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
        yield found


@pytest.mark.parametrize(("first", "second"), [SIDECARS, SIDECARS[::-1]])
def test_one_of_both_has_a_lock(twins: dict[str, Any], first: str, second: str) -> None:
    one, other = twins[first], twins[second]
    assert lock(one, "r", "ann")
    assert [lock(by, "r", who) for by in (one, other) for who in ("ann", "bob")] == [False] * 4
    assert unlock(other, "r", "bob") == "LOCK_BELONGS_TO_OTHERS"
    assert unlock(other, "none", "bob") == "LOCK_DOES_NOT_EXIST"
    assert unlock(other, "r", "ann") == "SUCCESS"  # the owner's name counts, not the sidecar
    assert unlock(one, "r", "ann") == "LOCK_DOES_NOT_EXIST"
    assert lock(other, "r", "bob")
    assert unlock(one, "r", "bob") == "SUCCESS"


# --- configuration


def read(stub: Any, store: str, *keys: str, **metadata: str) -> dict[str, tuple[str, str, dict[str, str]]]:
    request = configuration_pb2.GetConfigurationRequest(store_name=store, keys=keys, metadata=metadata)
    return told(stub.GetConfiguration(request, timeout=20))


def told(answer: Any) -> dict[str, tuple[str, str, dict[str, str]]]:
    return {key: (item.value, item.version, dict(item.metadata)) for key, item in answer.items.items()}


def subscribed(stub: Any, store: str, *keys: str, **metadata: str) -> tuple[Any, str]:
    request = configuration_pb2.SubscribeConfigurationRequest(store_name=store, keys=keys, metadata=metadata)
    stream = stub.SubscribeConfiguration(request, timeout=60)
    first = next(stream)
    assert first.id
    assert not first.items
    return stream, first.id


def end(stub: Any, store: str, id_: str) -> bool:
    request = configuration_pb2.UnsubscribeConfigurationRequest(store_name=store, id=id_)
    return bool(stub.UnsubscribeConfiguration(request, timeout=20).ok)


def test_redis_is_read_alike(shared: Shared) -> None:
    shared.redis.flushdb()
    shared.redis.mset({"a": "1||v1", "b": "two", "c": "x||y||z", "e": "", "d": "||v"})
    shared.redis.lpush("list", "x")
    for keys in (("a",), ("a", "b", "c", "d"), ("ghost", "a"), ("list", "a"), ("e", "a"), ()):
        assert read(shared.node, "rconf", *keys) == read(shared.daprd, "rconf", *keys), keys


def test_changes_in_redis_are_told_alike(shared: Shared) -> None:
    shared.redis.flushdb()
    shared.redis.set("a", "0||0")
    streams = [subscribed(stub, "rconf", "a", "b") for stub in (shared.daprd, shared.node)]
    heard: list[list[Any]] = []
    for key, value in (("a", "1||1"), ("b", "new"), ("c", "unheard"), ("a", "2||2"), ("b", "newer||9")):
        shared.redis.set(key, value)
        if key != "c":
            heard.append([told(next(stream)) for stream, _ in streams])
    shared.redis.delete("a")
    heard.append([told(next(stream)) for stream, _ in streams])
    assert [by_daprd for by_daprd, _ in heard] == [by_node for _, by_node in heard]
    for stub, (_, id_) in zip((shared.daprd, shared.node), streams, strict=True):
        assert end(stub, "rconf", id_)


def test_postgresql_is_read_and_its_changes_are_told_alike(shared: Shared) -> None:
    shared.postgres.rows("DELETE FROM configtable")
    insert = "INSERT INTO configtable VALUES ('{}', '{}', '{}', '{}')"
    shared.postgres.rows(insert.format("a", "1", "1", '{"k": "v"}'))
    shared.postgres.rows(insert.format("a", "2", "2", '{"k": "w"}'))
    shared.postgres.rows(insert.format("b", "3", "", "{}"))
    for keys in (("a",), ("a", "b", "ghost"), ()):
        assert read(shared.node, "pconf", *keys) == read(shared.daprd, "pconf", *keys), keys
    shared.postgres.rows("DELETE FROM configtable WHERE version = '1'")
    both = shared.daprd, shared.node
    streams = [subscribed(stub, "pconf", "a", "n", pgNotifyChannel="config") for stub in both]
    heard = []
    for statement in (
        "UPDATE configtable SET value = 'x', version = '3' WHERE key = 'a'",
        insert.format("n", "new", "1", '{"m": "1"}'),
        "UPDATE configtable SET value = 'y' WHERE key = 'n'",
    ):
        shared.postgres.rows(statement)
        heard.append([told(next(stream)) for stream, _ in streams])
    assert [by_daprd for by_daprd, _ in heard] == [by_node for _, by_node in heard]
    shared.postgres.rows("DELETE FROM configtable WHERE key = 'n'")
    assert [told(next(stream)) for stream, _ in streams] == [
        {"n": ("y", "1", {"m": "1"})},
        {"n": ("", "", {})},  # what is gone has no value: the driver's README says so
    ]
    for stub, (_, id_) in zip(both, streams, strict=True):
        assert end(stub, "pconf", id_)


def test_subscriptions_that_are_not_there(shared: Shared) -> None:
    request = configuration_pb2.GetConfigurationRequest(store_name="ghost", keys=["a"])
    assert code_of(shared.node.GetConfiguration, request) == code_of(shared.daprd.GetConfiguration, request)
    assert end(shared.node, "rconf", "nobody") is end(shared.daprd, "rconf", "nobody") is False


# --- secretstores.local.file


def secret(stub: Any, store: str, key: str) -> Any:
    request = secret_pb2.GetSecretRequest(store_name=store, key=key)
    try:
        return dict(stub.GetSecret(request, timeout=20).data)
    except grpc.RpcError as error:
        return error.code(), error.details()  # type: ignore[attr-defined]


def plain(value: str) -> str:
    """Without the traces of a daprd's formatting: `%!s(bool=true)`."""
    found = re.fullmatch(r"%!s\(\w+=(.*)\)", value)
    return found[1] if found else value


@pytest.mark.parametrize("store", ["nested", "several"])
def test_secrets_are_told_alike(shared: Shared, store: str) -> None:
    request = secret_pb2.GetBulkSecretRequest(store_name=store)
    theirs, ours = (
        {key: dict(one.secrets) for key, one in stub.GetBulkSecret(request, timeout=20).data.items()}
        for stub in (shared.daprd, shared.node)
    )
    assert ours.pop("n") == {"n": "7"}
    assert ours == {
        key: {name: plain(value) for name, value in of.items()} for key, of in theirs.items() if key != "n"
    }
    assert theirs.get("n") == NUMBER[store]
    for key in ("plain", "ghost", "", "redis", "redis/password", "redis:password", "Plain"):
        answer = secret(shared.daprd, store, key)
        expected = (
            {name: plain(text) for name, text in answer.items()} if isinstance(answer, dict) else answer
        )
        assert secret(shared.node, store, key) == expected, key


def test_a_secret_store_that_is_not_there(shared: Shared) -> None:
    assert secret(shared.node, "ghost", "a") == secret(shared.daprd, "ghost", "a")


# --- cryptography


def chunks(kind: Any, options: Any, data: bytes) -> Iterator[Any]:
    size = 40_000
    for seq, at in enumerate(range(0, max(len(data), 1), size)):
        payload = common_pb2.StreamPayload(data=data[at : at + size], seq=seq)
        yield kind(options=options if seq == 0 else None, payload=payload)


def encrypt(stub: Any, data: bytes, **options: Any) -> bytes:
    requests = chunks(crypto_pb2.EncryptRequest, crypto_pb2.EncryptRequestOptions(**options), data)
    return b"".join(answer.payload.data for answer in stub.EncryptAlpha1(requests, timeout=30))


def decrypt(stub: Any, data: bytes, **options: Any) -> bytes:
    requests = chunks(crypto_pb2.DecryptRequest, crypto_pb2.DecryptRequestOptions(**options), data)
    return b"".join(answer.payload.data for answer in stub.DecryptAlpha1(requests, timeout=30))


KEYS = [
    ("files", "rsa.pem", "RSA"), ("files", "rsa.pem", "RSA-OAEP-256"), ("files", "aes", "A256KW"),
    ("files", "aes", "AES"), ("keyset", "aes", "A256KW"),
]  # fmt: skip
CIPHERS = ["", "aes-gcm", "chacha20-poly1305"]


@pytest.mark.parametrize(("way", "cipher"), list(product((SIDECARS, SIDECARS[::-1]), CIPHERS)))
@pytest.mark.parametrize(("store", "key", "wrap"), KEYS)
def test_documents_go_both_ways(
    shared: Shared, store: str, key: str, wrap: str, way: tuple[str, str], cipher: str
) -> None:
    one, other = map(shared.of, way)
    named = {"component_name": store, "key_name": key, "key_wrap_algorithm": wrap}
    for size in (0, 1, 65_535, 65_536, 65_537, 1 << 20):
        data = (b"mesh" * (size // 4 + 1))[:size]
        sealed = encrypt(one, data, data_encryption_cipher=cipher, **named)
        assert decrypt(other, sealed, component_name=store) == data
    nameless = encrypt(one, b"x", omit_decryption_key_name=True, **named)
    assert decrypt(other, nameless, component_name=store, key_name=key) == b"x"


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    error: Any = caught.value
    return error.code(), error.details()


@pytest.mark.parametrize(
    "options",
    [
        {"component_name": "ghost", "key_name": "aes", "key_wrap_algorithm": "A256KW"},
        {"component_name": "files", "key_name": "", "key_wrap_algorithm": "A256KW"},
        {"component_name": "files", "key_name": "none", "key_wrap_algorithm": "A256KW"},
        {"component_name": "files", "key_name": "aes", "key_wrap_algorithm": ""},
        {"component_name": "files", "key_name": "aes", "key_wrap_algorithm": "NONE"},
        {
            "component_name": "files",
            "key_name": "aes",
            "key_wrap_algorithm": "AES",
            "data_encryption_cipher": "x",
        },
        {"component_name": "files", "key_name": "rsa.pem", "key_wrap_algorithm": "AES"},
        {"component_name": "files", "key_name": "aes", "key_wrap_algorithm": "RSA"},
        {"component_name": "files", "key_name": "aes", "key_wrap_algorithm": "A256CBC"},
        {"component_name": "files", "key_name": "aes", "key_wrap_algorithm": "A128CBC"},
        {"component_name": "files", "key_name": "rsa.pem", "key_wrap_algorithm": "RSA-OAEP"},
        {"component_name": "keyset", "key_name": "none", "key_wrap_algorithm": "A256KW"},
    ],
    ids=str,
)
def test_documents_that_cannot_be_made(shared: Shared, options: dict[str, str]) -> None:
    theirs, ours = (refused(encrypt, stub, b"x", **options) for stub in (shared.daprd, shared.node))
    if "failed to wrap the file key" in theirs[1]:  # the cause is in the words of each one's library
        theirs, ours = ((code, text.partition(" key: ")[0]) for code, text in (theirs, ours))
    assert ours == theirs


def test_documents_that_cannot_be_read(shared: Shared) -> None:
    sealed = encrypt(
        shared.daprd, b"x" * 100, component_name="files", key_name="aes", key_wrap_algorithm="AES"
    )
    for data in (b"", b"nonsense", sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:40]):
        theirs, ours = (
            refused(decrypt, stub, data, component_name="files") for stub in (shared.daprd, shared.node)
        )
        assert ours == theirs, data


@pytest.mark.parametrize(("first", "second"), [SIDECARS, SIDECARS[::-1]])
@pytest.mark.parametrize("algorithm", ["RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512", "RSA1_5"])
def test_a_key_wrapped_on_one_side(shared: Shared, first: str, second: str, algorithm: str) -> None:
    named = {"component_name": "files", "key_name": "rsa.pem", "algorithm": algorithm}
    sealed = shared.of(first).SubtleEncryptAlpha1(
        crypto_pb2.SubtleEncryptRequest(plaintext=b"plain", **named), timeout=20
    )
    request = crypto_pb2.SubtleDecryptRequest(ciphertext=sealed.ciphertext, **named)
    assert shared.of(second).SubtleDecryptAlpha1(request, timeout=20).plaintext == b"plain"


@pytest.mark.parametrize(("first", "second"), [SIDECARS, SIDECARS[::-1]])
@pytest.mark.parametrize("algorithm", ["A256GCM", "C20P", "A256CBC"])
def test_data_under_a_key_of_both(shared: Shared, first: str, second: str, algorithm: str) -> None:
    nonce = bytes(16 if "CBC" in algorithm else 12)
    named = {"component_name": "files", "key_name": "aes", "algorithm": algorithm, "nonce": nonce}
    sealed = shared.of(first).SubtleEncryptAlpha1(
        crypto_pb2.SubtleEncryptRequest(plaintext=b"plain" * 9, **named), timeout=20
    )
    request = crypto_pb2.SubtleDecryptRequest(ciphertext=sealed.ciphertext, tag=sealed.tag, **named)
    assert shared.of(second).SubtleDecryptAlpha1(request, timeout=20).plaintext == b"plain" * 9
