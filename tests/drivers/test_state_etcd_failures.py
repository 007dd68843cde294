"""state.etcd when things break: members that are killed, stall, restart and answer too late."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
import trio_asyncio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from meshnode_etcd.state import Options, driver
from meshnode_etcd.wire import etcdserverpb as wire
from support.etcd_servers import etcd_cluster, etcd_server
from support.install_etcd import find_etcd
from support.redis_servers import free_port, proxy

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BulkStateError, ComponentUnavailable, StateError
from meshnode.interfaces import DeleteRequest, DriverContext, GetRequest, SetRequest

pytestmark = pytest.mark.skipif(find_etcd() is None, reason="etcd is not installed")

CONTEXT = DriverContext("statestore", "app")
SHORT = timedelta(milliseconds=500)


@asynccontextmanager
async def open_driver(options):
    async with asyncio_loop(True), driver.open(options, CONTEXT) as store:
        yield store


async def value(store, key):
    result = await store.get(GetRequest(key))
    return None if result is None else result.data


async def until_it_works(operation):
    """Tries again for as long as the store is unavailable, as a resiliency policy would."""
    with trio.fail_after(60):
        while True:
            try:
                return await operation()
            except ComponentUnavailable:
                await trio.sleep(0.02)


async def test_no_server_at_open():
    options = Options(endpoints=f"127.0.0.1:{free_port()}")
    async with asyncio_loop(True):
        with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=options.endpoints):
            async with driver.open(options, CONTEXT):
                pass


async def test_a_server_that_goes_and_comes_back(tmp_path):
    with etcd_server(tmp_path) as server:
        server.require_login()
        options = Options(endpoints=server.address, username="root", password="s3cret")
        async with open_driver(options) as store:
            await store.set(SetRequest("k", b"1", ttl=600))
            server.kill()
            for operation in (
                lambda: store.get(GetRequest("k")),
                lambda: store.set(SetRequest("k", b"2")),
                lambda: store.set(SetRequest("k", b"2", ttl=5)),
                lambda: store.delete(DeleteRequest("k")),
                lambda: store.transact([SetRequest("k", b"2")], {}),
                lambda: store.bulk_set([SetRequest("k", b"2"), SetRequest("l", b"2")]),
                store.ping,
            ):
                with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=server.address):
                    await operation()
            answers = await store.bulk_get([GetRequest("k")], 0)
            assert isinstance(answers[0].error, ComponentUnavailable)
            server.start()
            # At once, though the server has forgotten the token.
            assert await value(store, "k") == b"1"
            await store.set(SetRequest("k", b"2"))
            assert await value(store, "k") == b"2"


async def test_a_token_that_is_forgotten_before_a_write(tmp_path):
    """And many calls that find out at once."""
    with etcd_server(tmp_path) as server:
        server.require_login()
        options = Options(endpoints=server.address, username="root", password="s3cret")
        async with open_driver(options) as store:
            for turn in range(3):
                await trio.to_thread.run_sync(server.kill)
                await trio.to_thread.run_sync(server.start)
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(store.set, SetRequest(f"k{number}", b"%d" % turn))
                assert await value(store, "k19") == b"%d" % turn


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_nothing_acknowledged_is_lost_when_the_server_ends(tmp_path, end):
    acknowledged, bell = {}, trio.Event()

    async def writer(store, number):
        nonlocal bell
        for turn in range(40):
            data = b"%d-%d" % (number, turn)
            await until_it_works(lambda data=data: store.set(SetRequest(f"w{number}", data)))
            acknowledged[number] = turn, data
            bell.set()
            bell = trio.Event()

    async def progress():
        seen = sum(turn for turn, _ in acknowledged.values())
        while sum(turn for turn, _ in acknowledged.values()) < seen + 50:
            await bell.wait()

    with etcd_server(tmp_path) as server:
        async with open_driver(Options(endpoints=server.address)) as store:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(8):
                        nursery.start_soon(writer, store, number)
                    for _ in range(3):
                        await progress()
                        await trio.to_thread.run_sync(getattr(server, end))
                        await trio.to_thread.run_sync(server.start)
            for number, (turn, data) in acknowledged.items():
                assert turn == 39
                assert await value(store, f"w{number}") == data
                # Each write counted, plus at most one more for each time its answer was lost.
                assert 40 <= int(server.get(f"/w{number}")["version"]) <= 43


async def test_a_call_is_cancelled_while_the_server_stalls(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(Options(endpoints=server.address)) as store:
            await store.set(SetRequest("k", b"1"))
            server.stall()
            try:
                for operation in (
                    lambda: store.get(GetRequest("k")),
                    lambda: store.set(SetRequest("k", b"2", ttl=60)),
                    lambda: store.transact([SetRequest("k", b"2"), SetRequest("l", b"2")], {}),
                ):
                    with trio.fail_after(10), trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(operation)
                            await trio.testing.wait_all_tasks_blocked(0.02)
                            scope.cancel()
                    assert scope.cancelled_caught
            finally:
                server.go_on()
            await store.set(SetRequest("k", b"3"))
            await store.set(SetRequest("l", b"3"))
            assert [await value(store, key) for key in "kl"] == [b"3", b"3"]


async def test_a_server_that_stalls(tmp_path):
    with etcd_server(tmp_path) as server:
        options = Options(endpoints=server.address, request_timeout=SHORT, dial_timeout=SHORT)
        async with open_driver(options) as store:
            await store.set(SetRequest("k", b"1"))
            server.stall()
            try:
                failures = []

                async def caller(number):
                    with pytest.raises(ComponentUnavailable, match="may have been carried out") as caught:
                        await store.set(SetRequest(f"k{number}", b"2"))
                    failures.append(caught.value)

                with trio.fail_after(10):
                    async with trio.open_nursery() as nursery:
                        for number in range(20):
                            nursery.start_soon(caller, number)
                    with pytest.raises(ComponentUnavailable, match="in time"):
                        await store.get(GetRequest("k"))
                assert len(failures) == 20
            finally:
                server.go_on()
            await until_it_works(lambda: store.set(SetRequest("k", b"3")))
            assert await value(store, "k") == b"3"


async def test_callers_are_released_when_the_store_closes(tmp_path):
    outcomes = []

    async def caller(operation, request):
        try:
            await operation(request)
        except ComponentUnavailable as error:
            outcomes.append(error)

    with etcd_server(tmp_path) as server:
        try:
            with trio.fail_after(10):
                async with asyncio_loop(True), trio.open_nursery() as nursery:
                    async with driver.open(Options(endpoints=server.address), CONTEXT) as store:
                        server.stall()
                        for number in range(20):
                            nursery.start_soon(caller, store.set, SetRequest(f"k{number}", b"v"))
                            nursery.start_soon(caller, store.get, GetRequest(f"k{number}"))
                        await trio.testing.wait_all_tasks_blocked(0.05)
                    with pytest.raises(ComponentUnavailable, match="closed"):
                        await store.set(SetRequest("k", b"v"))
        finally:
            server.go_on()
    assert len(outcomes) == 40
    assert sum("closed" in str(error) for error in outcomes) >= 20, "a read tried again after the end"


async def test_everything_around_it_can_be_cancelled(tmp_path):
    with etcd_server(tmp_path) as server:
        try:
            with trio.fail_after(20), trio.CancelScope() as scope:
                async with (
                    open_driver(Options(endpoints=server.address)) as store,
                    trio.open_nursery() as nursery,
                ):
                    server.stall()
                    for number in range(20):
                        nursery.start_soon(store.set, SetRequest(f"k{number}", b"v"))
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    scope.cancel()
            assert scope.cancelled_caught
        finally:
            server.go_on()


async def test_a_read_is_repeated_where_its_connection_breaks(tmp_path):
    with etcd_server(tmp_path) as server:
        async with proxy(server) as (address, link), open_driver(Options(endpoints=address)) as store:
            await store.set(SetRequest("k", b"1"))
            link["swallow"] = 1
            assert await value(store, "k") == b"1"
            link["swallow"] = 1
            with pytest.raises(ComponentUnavailable, match="may have been carried out"):
                await store.set(SetRequest("k", b"2"))
            link["swallow"] = 1
            with pytest.raises(BulkStateError, match="may have been carried out"):
                await store.bulk_set([SetRequest("k", b"3")])
            await store.set(SetRequest("k", b"4"))
            assert await value(store, "k") == b"4"


class Scripted:
    """A member that answers every call with the same error, and counts. (A real one does so when it chooses.)
    A lease it grants.
    """

    def __init__(self, status=Status.UNAVAILABLE, message="etcdserver: request timed out"):
        self.calls = []
        self._error = status, message

    def __mapping__(self):
        def handler(name, request, reply):
            async def answer(stream):
                received = await stream.recv_message()
                self.calls.append(name)
                if name == "LeaseGrant":
                    await stream.send_message(wire.LeaseGrantResponse(id=7, ttl=received.ttl))
                elif name == "Range" and received.keys_only:  # the ping
                    self.calls.pop()
                    await stream.send_message(wire.RangeResponse())
                else:
                    raise GRPCError(*self._error)

            return Handler(answer, Cardinality.UNARY_UNARY, request, reply)

        return {
            "/etcdserverpb.KV/Range": handler("Range", wire.RangeRequest, wire.RangeResponse),
            "/etcdserverpb.KV/Txn": handler("Txn", wire.TxnRequest, wire.TxnResponse),
            "/etcdserverpb.Lease/LeaseGrant": handler(
                "LeaseGrant", wire.LeaseGrantRequest, wire.LeaseGrantResponse
            ),
            "/etcdserverpb.Lease/LeaseRevoke": handler(
                "LeaseRevoke", wire.LeaseRevokeRequest, wire.LeaseRevokeResponse
            ),
        }


@asynccontextmanager
async def scripted(*members):
    """Their addresses; around it the node's loop."""
    ports = [free_port() for _ in members]
    async with asyncio_loop(True):
        servers = [Server([member]) for member in members]
        for server, port in zip(servers, ports, strict=True):
            await trio_asyncio.aio_as_trio(server.start)("127.0.0.1", port)
        try:
            yield [f"127.0.0.1:{port}" for port in ports]
        finally:
            for server in servers:
                server.close()
                await trio_asyncio.aio_as_trio(server.wait_closed)()


async def test_what_may_have_been_done_is_not_asked_for_again():
    members = [Scripted(), Scripted()]
    async with scripted(*members) as addresses:
        options = Options(endpoints=",".join([f"127.0.0.1:{free_port()}", *addresses]))
        async with driver.open(options, CONTEXT) as store:
            with pytest.raises(ComponentUnavailable, match="timed out; the request may have been"):
                await store.set(SetRequest("k", b"v"))
            # The first is passed over from now on; a read asks the others, and the one before them again.
            assert [member.calls for member in members] == [["Txn"], []]
            with pytest.raises(ComponentUnavailable):
                await store.get(GetRequest("k"))
            assert [member.calls for member in members] == [["Txn", "Range"], ["Range", "Range"]]


async def test_a_lease_is_kept_where_nobody_knows_whether_it_is_in_use():
    member = Scripted()
    async with scripted(member) as (address,), driver.open(Options(endpoints=address), CONTEXT) as store:
        with pytest.raises(ComponentUnavailable, match="may have been carried out"):
            await store.set(SetRequest("k", b"v", ttl=60))
    assert member.calls == ["LeaseGrant", "Txn"]


async def test_a_lease_is_given_back_where_the_write_was_refused():
    member = Scripted(Status.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    async with scripted(member) as (address,), driver.open(Options(endpoints=address), CONTEXT) as store:
        with pytest.raises(StateError, match="space exceeded") as caught:
            await store.set(SetRequest("k", b"v", ttl=60))
    assert caught.value.code is Status.RESOURCE_EXHAUSTED
    assert member.calls == ["LeaseGrant", "Txn", "LeaseRevoke"]


async def test_a_lease_that_was_over_before_it_could_be_used():
    member = Scripted(Status.NOT_FOUND, "etcdserver: requested lease not found")
    async with scripted(member) as (address,), driver.open(Options(endpoints=address), CONTEXT) as store:
        with pytest.raises(ComponentUnavailable, match="lease was over"):
            await store.set(SetRequest("k", b"v", ttl=1))


async def test_overload_is_refused(tmp_path):
    with etcd_server(tmp_path) as server:
        options = Options(endpoints=server.address, request_timeout=timedelta(minutes=1))
        async with open_driver(options) as store:
            server.stall()
            try:
                async with trio.open_nursery() as nursery:
                    for _ in range(2_000):
                        nursery.start_soon(store.get, GetRequest("k"))
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    with pytest.raises(StateError) as caught:
                        await store.get(GetRequest("k"))
                    assert caught.value.code is Status.RESOURCE_EXHAUSTED
                    nursery.cancel_scope.cancel()
            finally:
                server.go_on()
            await store.set(SetRequest("k", b"v"))
            assert await value(store, "k") == b"v"


async def test_a_cluster_that_loses_members(tmp_path):
    with etcd_cluster(tmp_path) as servers:
        options = Options(
            endpoints=",".join(server.address for server in servers),
            request_timeout=timedelta(seconds=1),
            dial_timeout=timedelta(seconds=1),
        )
        async with open_driver(options) as store:
            await store.set(SetRequest("k", b"0"))
            for turn, server in enumerate(servers, 1):
                await trio.to_thread.run_sync(server.kill)
                await until_it_works(lambda turn=turn: store.set(SetRequest("k", b"%d" % turn)))
                assert await until_it_works(lambda: value(store, "k")) == b"%d" % turn
                await trio.to_thread.run_sync(server.launch, *cluster_of(servers))
                await trio.to_thread.run_sync(server.wait)
            servers[0].stall()
            try:
                await until_it_works(lambda: store.set(SetRequest("k", b"stalled")))
            finally:
                servers[0].go_on()
            for server in servers[:2]:
                await trio.to_thread.run_sync(server.kill)
            with trio.fail_after(20), pytest.raises(ComponentUnavailable):
                await store.set(SetRequest("k", b"no quorum"))
            for server in servers[:2]:
                await trio.to_thread.run_sync(server.launch, *cluster_of(servers))
            await until_it_works(lambda: store.set(SetRequest("k", b"back")))
            assert await until_it_works(lambda: value(store, "k")) == b"back"


def cluster_of(servers):
    return (f"--initial-cluster={','.join(server.as_member for server in servers)}",)
