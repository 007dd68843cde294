"""state.etcd on a real server: the conformance suite, and Dapr's two layouts."""

from __future__ import annotations

import socket
from contextlib import ExitStack, asynccontextmanager

import pytest
from meshnode_etcd.state import Options, driver, driver_v1
from support.certificates import Authority
from support.etcd_servers import etcd_server, text64
from support.install_etcd import find_etcd

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import (
    BulkStateError,
    ComponentUnavailable,
    ConfigError,
    EtagMismatch,
    NotImplementedHere,
    StateError,
    Status,
)
from meshnode.interfaces import (
    Concurrency,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    QueryRequest,
    SetRequest,
)
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import state

pytestmark = pytest.mark.skipif(find_etcd() is None, reason="etcd is not installed")

WRITTEN = 1_700_000_000.5
CONTEXT = DriverContext("statestore", "app", wall=lambda: WRITTEN)
CHECKS = [check for check in state.CHECKS if Feature.QUERY_API not in check.needs]
MANY = 1000
MORE = f"--max-txn-ops={MANY}"

# What a daprd's v2 has written: the value x, at 1700000000.5, for an hour, and without a limit.
LIMITED = bytes.fromhex("0a0178 120c 0880e2cfaa06 1080cab5ee01 1a03 08901c")
ENDLESS = bytes.fromhex("0a0178 120c 0880e2cfaa06 1080cab5ee01 1a00")


@asynccontextmanager
async def open_driver(options, used=driver):
    async with asyncio_loop(True), used.open(options, CONTEXT) as store:
        yield store


def plain(folder, stack):
    server = stack.enter_context(etcd_server(folder, MORE))
    return Options(endpoints=server.address, max_txn_ops=MANY)


def with_user(folder, stack):
    server = stack.enter_context(etcd_server(folder, MORE))
    server.require_login()
    return Options(endpoints=server.address, username="root", password="s3cret", max_txn_ops=MANY)


def with_tls(folder, stack):
    authority = Authority()
    ca, certificate, key = authority.write(folder, "server")
    tls = [f"--cert-file={certificate}", f"--key-file={key}", f"--trusted-ca-file={ca}"]
    server = stack.enter_context(etcd_server(folder, MORE, tls=[*tls, "--client-cert-auth"]))
    client_certificate, client_key = authority.issue("client")
    return Options(
        endpoints=f"https://{server.address}",
        tls_enable=True,
        ca=authority.certificate,
        cert=client_certificate,
        key=client_key,
        max_txn_ops=MANY,
        key_prefix_path="mesh/state",
    )


@pytest.fixture(scope="module", params=(plain, with_user, with_tls), ids=lambda way: way.__name__)
def options(request, tmp_path_factory):
    with ExitStack() as stack:
        yield request.param(tmp_path_factory.mktemp("etcd"), stack)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with etcd_server(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check, options):
    assert await check.run(lambda: open_driver(options))


@pytest.fixture(scope="module")
def options_of_v1(tmp_path_factory):
    with ExitStack() as stack:
        yield plain(tmp_path_factory.mktemp("etcd"), stack)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance_of_v1(check, options_of_v1):
    assert await check.run(lambda: open_driver(options_of_v1, driver_v1))


async def test_v1_keeps_the_value_itself(server):
    async with open_driver(Options(endpoints=server.address, key_prefix_path="one"), driver_v1) as store:
        await store.set(SetRequest("app||k", b"\x00v"))
        kept = server.get("one/app||k")
        assert kept["value"] == b"\x00v"
        found = await store.get(GetRequest("app||k"))
        assert (found.data, found.etag, found.metadata) == (b"\x00v", kept["mod_revision"], {})
        etag = server.put("one/app||theirs", "a daprd's")
        found = await store.get(GetRequest("app||theirs"))
        assert (found.data, found.etag) == (b"a daprd's", str(etag))


async def test_v2_keeps_a_message(server):
    async with open_driver(Options(endpoints=server.address)) as store:
        await store.set(SetRequest("app||k", b"x", ttl=3600))
        kept = server.get("/app||k")
        assert kept["value"] == LIMITED
        lease = server.post("lease/timetolive", ID=kept["lease"], keys=True)
        assert lease["grantedTTL"] == "3600"
        assert lease["keys"] == [text64("/app||k")]
        await store.set(SetRequest("app||k", b"x"))
        kept = server.get("/app||k")
        assert "lease" not in kept
        # Without a time to live there is no field for it: a daprd then reports no expiry.
        assert kept["value"] == ENDLESS.removesuffix(b"\x1a\x00")


async def test_what_a_daprd_has_written_in_v2(server):
    async with open_driver(Options(endpoints=server.address)) as store:
        for value, metadata in ((LIMITED, {"ttlExpireTime": "2023-11-14T23:13:20Z"}), (ENDLESS, {})):
            etag = str(server.put("/app||theirs", value))
            found = await store.get(GetRequest("app||theirs"))
            assert (found.data, found.etag, found.metadata) == (b"x", etag, metadata)
        await store.set(SetRequest("app||theirs", b"ours", etag=etag))


@pytest.mark.parametrize("value", [b'{"a": 1}', b'"text"', b"", b"\xff" * 12, b"\x0a\x7fx", LIMITED[:-1]])
async def test_a_value_of_v1_is_no_value_of_v2(server, value):
    server.put("/app||old", value)
    server.put("/app||new", LIMITED)
    async with open_driver(Options(endpoints=server.address)) as store:
        with pytest.raises(StateError, match=r"app\|\|old is not in the layout of v2"):
            await store.get(GetRequest("app||old"))
        old, new = await store.bulk_get([GetRequest("app||old"), GetRequest("app||new")], 0)
        assert isinstance(old.error, StateError)
        assert new.result.data == b"x"


async def test_more_operations_than_allowed(server):
    async with open_driver(Options(endpoints=server.address, max_txn_ops=3)) as store:
        sets = [SetRequest(f"app||{number}", b"v") for number in range(4)]
        with pytest.raises(StateError, match="maxTxnOps is 3") as caught:
            await store.transact(sets, {})
        assert caught.value.code is Status.INVALID_ARGUMENT
        assert caught.value.details[0].reason == "DAPR_STATE_TOO_MANY_TRANSACTIONS"
        # Reads are not the caller's to divide, nor are writes one by one.
        await store.bulk_set(sets)
        found = await store.bulk_get([GetRequest(one.key) for one in sets], 0)
        assert [one.result.data for one in found] == [b"v"] * 4


async def test_what_the_server_refuses(server):
    before = server.post("lease/leases").get("leases")
    async with open_driver(Options(endpoints=server.address, max_txn_ops=200)) as store:
        with pytest.raises(StateError, match="too many operations") as caught:
            await store.transact([SetRequest(f"{number}", b"", ttl=60) for number in range(150)], {})
        assert caught.value.code is Status.INVALID_ARGUMENT
        assert server.post("lease/leases").get("leases") == before, "a lease was left behind"
        with pytest.raises(StateError, match="too large"):
            await store.set(SetRequest("large", b"x" * 1_600_000))
        with pytest.raises(NotImplementedHere):
            await store.query(QueryRequest())


async def test_a_refused_write_leaves_no_lease(server):
    async with open_driver(Options(endpoints=server.address)) as store:
        before = server.post("lease/leases").get("leases")
        await store.set(SetRequest("app||kept", b"1"))
        for operations in (
            [SetRequest("app||kept", b"2", etag="1", ttl=600)],
            [
                SetRequest("app||other", b"2", ttl=600),
                SetRequest("app||kept", b"2", concurrency=Concurrency.FIRST_WRITE, ttl=700),
            ],
        ):
            with pytest.raises(EtagMismatch, match=r"app\|\|kept"):
                await store.transact(operations, {})
        assert server.post("lease/leases").get("leases") == before


@pytest.mark.parametrize("etag", ["0", "00", "-1", "01", "٣", str(2**63), "9" * 30])
async def test_etags_that_can_be_none(server, etag):
    """As in Dapr each is another etag than the stored one, of a key that is missing too."""
    async with open_driver(Options(endpoints=server.address)) as store:
        for key in ("app||missing", "app||there"):
            with pytest.raises(EtagMismatch):
                await store.set(SetRequest(key, b"v", etag=etag))
            with pytest.raises(EtagMismatch):
                await store.delete(DeleteRequest(key, etag=etag))
            await store.set(SetRequest("app||there", b"v"))


async def test_operations_on_one_key_meet_each_other(server):
    key = "app||twice"
    async with open_driver(Options(endpoints=server.address)) as store:
        await store.set(SetRequest(key, b"1"))
        etag = (await store.get(GetRequest(key))).etag
        first = SetRequest(key, b"2", concurrency=Concurrency.FIRST_WRITE)
        for operations in (
            [SetRequest(key, b"2"), first],
            [SetRequest(key, b"2"), SetRequest(key, b"3", etag=etag)],
            [DeleteRequest(key), DeleteRequest(key, etag=etag)],
        ):
            with pytest.raises(EtagMismatch):
                await store.transact(operations, {})
        await store.transact([DeleteRequest(key, etag=etag), first, SetRequest(key, b"3")], {})
        assert (await store.get(GetRequest(key))).data == b"3"


async def test_wrong_credentials(tmp_path):
    with etcd_server(tmp_path) as server:
        server.require_login()
        async with asyncio_loop(True):
            wrong = Options(endpoints=server.address, username="root", password="guess")
            with pytest.raises(ConfigError, match=r"password.*authentication failed") as caught:
                async with driver.open(wrong, CONTEXT):
                    pass
            assert "guess" not in str(caught.value)
            with pytest.raises(ConfigError, match=r"username.*user name is empty"):
                async with driver.open(Options(endpoints=server.address), CONTEXT):
                    pass


async def test_a_user_that_may_only_do_some_things(tmp_path):
    with etcd_server(tmp_path) as server:
        server.post("auth/user/add", name="reader", password="r")
        server.post("auth/role/add", name="mesh")
        may = {"permType": "READ", "key": text64("mesh/"), "range_end": text64("mesh0")}
        server.post("auth/role/grant", name="mesh", perm=may)
        server.post("auth/user/grant", user="reader", role="mesh")
        server.put("mesh/k", LIMITED)
        server.require_login()
        login = {"endpoints": server.address, "username": "reader", "password": "r"}
        async with open_driver(Options(key_prefix_path="mesh", **login)) as store:
            assert (await store.get(GetRequest("k"))).data == b"x"
            with pytest.raises(StateError, match="permission denied") as caught:
                await store.set(SetRequest("k", b"y"))
            assert caught.value.code is Status.PERMISSION_DENIED
            with pytest.raises(BulkStateError, match="permission denied"):
                await store.bulk_set([SetRequest("k", b"y")])
        async with open_driver(Options(**login)) as store:
            await store.ping()
            (answer,) = await store.bulk_get([GetRequest("k")], 0)
            assert "permission denied" in str(answer.error)


async def test_a_login_that_nobody_asks_for(server, caplog):
    options = Options(endpoints=server.address, username="root", password="s3cret")
    async with open_driver(options) as store:
        await store.set(SetRequest("app||k", b"v"))
    assert "etcd asks for no login" in caplog.text


async def test_tls_that_does_not_fit(server, tmp_path):
    authority = Authority()
    _, certificate, key = authority.write(tmp_path, "server")
    tls = [f"--cert-file={certificate}", f"--key-file={key}"]
    with etcd_server(tmp_path, tls=tls) as secure:
        for options in (
            Options(endpoints=secure.address),
            Options(endpoints=secure.address, tls_enable=True, ca=Authority().certificate),
            Options(endpoints=server.address, tls_enable=True, ca=authority.certificate),
        ):
            async with asyncio_loop(True):
                with pytest.raises(ComponentUnavailable, match=options.endpoints):
                    async with driver.open(options, CONTEXT):
                        pass
        async with open_driver(
            Options(endpoints=secure.address, tls_enable=True, ca=authority.certificate)
        ) as store:
            await store.set(SetRequest("k", b"v"))


@pytest.mark.parametrize(
    ("field", "metadata"),
    [
        ("endpoints", {"endpoints": ""}),
        ("endpoints", {"endpoints": "host:70000"}),
        ("endpoints", {"endpoints": "unix:///socket"}),
        ("endpoints", {"endpoints": "https://host:1"}),
        ("endpoints", {"endpoints": "http://host:1", "tlsEnable": "true"}),
        ("cert", {"key": "k"}),
        ("key", {"cert": "c", "tlsEnable": "true"}),
        ("password", {"username": "u"}),
        ("username", {"password": "p"}),
        ("maxTxnOps", {"maxTxnOps": "0"}),
        ("dialTimeout", {"dialTimeout": "0"}),
        ("requestTimeout", {"requestTimeout": "-1s"}),
        ("tlsEnable", {"tlsEnable": "perhaps"}),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_used(field, metadata):
    with pytest.raises(ConfigError) as caught:
        load_options(driver.metadata, {"endpoints": "a:1", **metadata})
    assert [problem.field.rpartition(".")[2] for problem in caught.value.problems] == [field]


@pytest.mark.parametrize("field", ["ca", "cert"])
async def test_certificates_that_are_none(field):
    given = {"ca": "x"} if field == "ca" else {"cert": "x", "key": "x"}
    options = Options(endpoints="127.0.0.1:1", tls_enable=True, **given)
    async with asyncio_loop(True):
        with pytest.raises(ConfigError, match=field):
            async with driver.open(options, CONTEXT):
                pass


def test_metadata_as_in_dapr():
    registry = Registry.discover()
    assert registry.driver("state.etcd", "v2") is driver
    assert registry.driver("state.etcd", "v1") is driver_v1
    with pytest.raises(ConfigError, match="v3"):
        registry.driver("state.etcd", "v3")
    given = {"endpoints": "a:1, b,[::1]:3", "keyPrefixPath": "mesh", "tlsEnable": "false", "maxTxnOps": "64"}
    options = load_options(driver.metadata, given)
    assert options.addresses == [("a", 1), ("b", 2379), ("::1", 3)]
    assert (options.key_prefix_path, options.max_txn_ops) == ("mesh", 64)
    assert socket.inet_pton(socket.AF_INET6, options.addresses[2][0])
