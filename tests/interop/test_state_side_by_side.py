"""One application's state behind a daprd and a meshnode in turn: what either writes is the other's, on every
store that both have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import grpc
import pytest
from attrs import frozen
from support.daprd_servers import daprd
from support.install_daprd import find_daprd
from support.processes import node, wait_until
from support.sidecar_clients import State, code_of, delete, upsert
from support.stores_side_by_side import KINDS, Kind, component, shared_servers

pytestmark = pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed")

SECRETS = """---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: keys}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: "WHERE"}]
"""
ENCRYPTED = "{name: primaryEncryptionKey, secretKeyRef: {name: primary, key: primary}}"
PREFIXES = ("appid", "name", "namespace", "none", "Custom")
JSON = "application/json"
MISSING = ""

VALUES: Mapping[str, tuple[bytes, str]] = {
    "text": (b"hello", ""),
    "document": (b'{"b":1, "a":[1,2.5,-3]}', JSON),
    "string": (b'"text"', JSON),
    "number": (b"5", JSON),
    "null": (b"null", JSON),
    "other letters": ('{"ä":"\u20ac"}'.encode(), JSON),
    "document without a type": (b'{"b":1, "a":[1,2]}', ""),
    "quoted": (b'"quoted"', ""),
    "digits": (b"17", ""),
    "looks like base64": (b"aGVsbG8=", ""),
    "bytes": (bytes(range(256)), ""),
    "typed bytes": (b"\x00\xff", "application/octet-stream"),
    "empty": (b"", ""),
    "unicode: ünï-日本 /.%": (b"v", ""),
}


@frozen
class Pair:
    """One application id twice, and the stores they have in common."""

    daprd: State
    node: State
    stores: frozenset[str]

    @property
    def turns(self) -> tuple[tuple[State, State], ...]:
        """Who is first, who is second."""
        return (self.daprd, self.node), (self.node, self.daprd)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("state")
    (home / "keys.json").write_text(json.dumps({"primary": "0123456789abcdef" * 2}))
    with ExitStack() as stack:
        wheres = stack.enter_context(shared_servers(home))
        kinds = [kind for kind in KINDS.values() if kind.server in wheres]
        text = "".join(
            [SECRETS.replace("WHERE", str(home / "keys.json"))]
            + [component(kind, wheres[kind.server]) for kind in kinds]
            + [_encrypted(kind, wheres[kind.server]) for kind in kinds]
            + [_prefixed(prefix, wheres["sqlite"]) for prefix in PREFIXES]
        )
        env = {"NAMESPACE": "blue"}
        theirs = stack.enter_context(daprd("shop", home, resources=text, env=env))
        ours = stack.enter_context(node("shop", home, resources=text, env=env))
        channels = [stack.enter_context(grpc.insecure_channel(one.address)) for one in (theirs, ours)]
        yield Pair(
            State("daprd", channels[0]), State("node", channels[1]), frozenset(kind.name for kind in kinds)
        )


@pytest.fixture(params=KINDS.values(), ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest, pair: Pair) -> Kind:
    found: Kind = request.param
    if found.name not in pair.stores:
        pytest.skip(f"{found.server} is not installed")
    return found


def _encrypted(kind: Kind, where: str) -> str:
    text = component(kind, where, f"{kind.name}-encrypted", ENCRYPTED)
    return text.replace("spec:\n", "auth: {secretStore: keys}\nspec:\n")


def _prefixed(prefix: str, where: str) -> str:
    return component(KINDS["sqlite-v1"], where, f"by-{prefix}", f"{{name: keyPrefix, value: {prefix}}}")


def same(kind: Kind, content_type: str, read: bytes, written: bytes) -> bool:
    """JSON may be written anew, for it is to a daprd a value and not bytes."""
    if content_type != JSON:
        return read == written
    return bool(json.loads(read) == json.loads(written)) and b"1.0" not in read


def refuses(kind: Kind, name: str, writer: State) -> bool:
    """What a daprd cannot keep on these servers, and a meshnode can."""
    if writer.name == "node":
        return False
    return (kind.name == "postgresql-v2" and name == "empty") or (
        # The test's server checks what is text; a MongoDB does not, and keeps a string that is none.
        kind.type == "mongodb" and "bytes" in name
    )


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_one_is_the_other_s_with_its_etag(pair: Pair, kind: Kind, name: str) -> None:
    value, content_type = VALUES[name]
    metadata = {"contentType": content_type} if content_type else {}
    for writer, reader in pair.turns:
        key = f"{name} of {writer.name}"
        if refuses(kind, name, writer):
            assert code_of(writer.save, kind.name, key, value, **metadata) == "INTERNAL"
            continue
        writer.save(kind.name, key, value, **metadata)
        found, own = reader.get(kind.name, key), writer.get(kind.name, key)
        assert found.etag == own.etag != MISSING
        assert same(kind, content_type, own.data, value), writer.name
        if kind.type == "mongodb" and "bytes" in name:
            assert b'"Data":' in found.data  # deliberate: binary data is what a document has for bytes
        else:
            assert same(kind, content_type, found.data, value), reader.name
        if writer is pair.node and content_type != JSON:
            assert own.data == value
        reader.save(kind.name, key, b"again", found.etag)
        assert writer.get(kind.name, key).data == b"again"


@pytest.mark.parametrize("name", VALUES)
def test_an_encrypted_value_of_one_is_the_other_s(pair: Pair, kind: Kind, name: str) -> None:
    store = f"{kind.name}-encrypted"
    value, content_type = VALUES[name]
    metadata = {"contentType": content_type} if content_type else {}
    for writer, reader in pair.turns:
        writer.save(store, f"{name} of {writer.name}", value, **metadata)
        raw = pair.node.get(kind.name, f"{name} of {writer.name}")
        assert raw.data.endswith(b"||primary")
        found = reader.get(store, f"{name} of {writer.name}")
        assert same(kind, content_type, found.data, value)
        assert found.etag == raw.etag


def test_an_etag_that_one_made_stale_is_refused_by_the_other(pair: Pair, kind: Kind) -> None:
    for first, second in pair.turns:
        first.save(kind.name, "e", b"1")
        stale = second.get(kind.name, "e").etag
        first.save(kind.name, "e", b"2")
        assert code_of(second.save, kind.name, "e", b"3", stale) == "ABORTED"
        assert code_of(second.delete, kind.name, "e", stale) == "ABORTED"
        assert code_of(second.transact, kind.name, upsert("e", b"3", stale)) == "INTERNAL"
        assert first.get(kind.name, "e").data == b"2"
        second.delete(kind.name, "e", first.get(kind.name, "e").etag)
        assert first.get(kind.name, "e").data == b""
        # Deliberate: what was deleted meanwhile has changed.
        deaf = kind.type == "redis" and second is pair.daprd
        assert code_of(second.delete, kind.name, "e", stale) == ("OK" if deaf else "ABORTED")
    answers = [code_of(one.save, kind.name, f"none for {one.name}", b"v", "17") for one in pair.turns[0]]
    assert answers == ["OK" if kind.type in ("redis", "mongodb") else "ABORTED", "ABORTED"]


def test_a_first_write_of_one_is_the_other_s_loss(pair: Pair, kind: Kind) -> None:
    for first, second in pair.turns:
        first.save(kind.name, f"first-{first.name}", b"1", first=True)
        lost = code_of(second.save, kind.name, f"first-{first.name}", b"2", first=True)
        # Deliberate: a mismatch by that name, where daprd has none on Redis and PostgreSQL.
        nameless = second is pair.daprd and kind.type in ("redis", "postgresql")
        assert lost == ("INTERNAL" if nameless else "ABORTED")
        assert second.get(kind.name, f"first-{first.name}").data == b"1"


def test_a_time_to_live_of_one_holds_for_the_other(pair: Pair, kind: Kind) -> None:
    for first, second in pair.turns:
        first.save(kind.name, f"long-{first.name}", b"v", ttlInSeconds="1000")
        ends = [one.get(kind.name, f"long-{first.name}").metadata for one in pair.turns[0]]
        assert ends[0] == ends[1]
        # Redis and version 1 on etcd do not tell.
        assert ("ttlExpireTime" in ends[0]) == (kind.name not in ("redis-v1", "etcd-v1"))
        second.save(kind.name, f"long-{first.name}", b"v")
        assert pair.node.get(kind.name, f"long-{first.name}").metadata == {}


def test_what_one_lets_expire_is_gone_for_the_other(pair: Pair) -> None:
    """On all stores at once, to wait for it once."""
    for first, _ in pair.turns:
        for store in pair.stores:
            first.save(store, f"short-{first.name}", b"v", ttlInSeconds="1")
    for first, second in pair.turns:
        for store in pair.stores:
            if store == "mongodb-v1" and second is pair.daprd:
                continue  # it shows what is over until the server has removed it, within a minute
            wait_until(lambda key=f"short-{first.name}", at=store, one=second: not one.get(at, key).data)


def test_a_transaction_of_one_is_whole_for_the_other(pair: Pair, kind: Kind) -> None:
    for first, second in pair.turns:
        second.save(kind.name, "t0", b"old")
        first.transact(kind.name, upsert("t1", b"x"), upsert("t2", b"y"), delete("t0"))
        found = second.bulk_get(kind.name, "t0", "t1", "t2", "t3")
        assert {key: one.data for key, one in found.items()} == {"t0": b"", "t1": b"x", "t2": b"y", "t3": b""}
        assert found["t1"].etag == first.get(kind.name, "t1").etag
        second.delete(kind.name, "t1")
        second.delete(kind.name, "t2")
        assert first.get(kind.name, "t1").etag == MISSING


QUERIES = (
    '{"filter":{"EQ":{"who":"node"}},"sort":[{"key":"p.n","order":"DESC"}]}',
    '{"filter":{"OR":[{"EQ":{"p.n":0}},{"IN":{"p.s":["b"]}}]},"sort":[{"key":"who"},{"key":"p.n"}]}',
    '{"filter":{"AND":[{"GT":{"p.n":0}},{"EQ":{"who":"daprd"}}]},"sort":[{"key":"p.n"}],"page":{"limit":1}}',
)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_what_both_have_written(pair: Pair, kind: Kind, query: str) -> None:
    if not kind.queries:
        answers = [code_of(one.query, kind.name, query) for one in pair.turns[0]]
        assert answers == ["INTERNAL", "OK" if kind.type == "sqlite" else "INTERNAL"]  # ours has them there
        return
    for one in pair.turns[0]:
        for number, letter in enumerate("abc"):
            value = {"p": {"n": number, "s": letter}, "who": one.name}
            one.save(kind.name, f"q-{one.name}-{letter}", json.dumps(value).encode(), contentType=JSON)
    theirs, ours = (
        [(key, json.loads(data)) for key, data in one.query(kind.name, query)] for one in pair.turns[0]
    )
    assert theirs == ours != []


@pytest.mark.parametrize("prefix", PREFIXES)
def test_keys_have_the_same_prefix(pair: Pair, prefix: str) -> None:
    for first, second in pair.turns:
        first.save(f"by-{prefix}", f"k-{first.name}", prefix.encode())
        assert second.get(f"by-{prefix}", f"k-{first.name}").data == prefix.encode()
        others = [other for other in PREFIXES if other != prefix]
        assert all(second.get(f"by-{other}", f"k-{first.name}").data != prefix.encode() for other in others)
