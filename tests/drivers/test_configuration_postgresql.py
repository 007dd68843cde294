"""configuration.postgresql on real servers."""

from __future__ import annotations

import itertools
import json
import signal
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_postgresql.configuration import Options, driver, postgres
from support.redis_servers import free_port

from meshnode.errors import ComponentUnavailable, ConfigError, ConfigurationError, InvalidArgument
from meshnode.interfaces import ConfigurationItem, DriverContext
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import configuration

CONTEXT = DriverContext("settings", "app")
# A connection that listens has said this last.
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_notify($1%'"
CUT = LISTENING.replace("count(*)", "pg_terminate_backend(pid)")
_numbers = itertools.count()

# As Dapr's documentation has it.
TABLE = """CREATE TABLE {0} (
    KEY VARCHAR NOT NULL, VALUE VARCHAR NOT NULL, VERSION VARCHAR NOT NULL, METADATA JSON
);
CREATE OR REPLACE FUNCTION notify_{0}() RETURNS TRIGGER AS $$
    DECLARE data json; notification json;
    BEGIN
        IF (TG_OP = 'DELETE') THEN data = row_to_json(OLD); ELSE data = row_to_json(NEW); END IF;
        notification = json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data);
        PERFORM pg_notify('{0}', notification::text);
        RETURN NULL;
    END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER config AFTER INSERT OR UPDATE OR DELETE ON {0} FOR EACH ROW EXECUTE PROCEDURE notify_{0}();"""


class Table:
    """One test's table, its trigger and its channel, all of the same name."""

    def __init__(self, server):
        self.server = server
        self.name = f"config{next(_numbers)}"
        server.rows(TABLE.format(self.name))

    def opened(self, **options):
        given = {"connection_string": self.server.url, "table": self.name, "notify_channel": self.name}
        return driver.open(Options(**given | options), CONTEXT)

    def put(self, key, value, version=""):
        self.server.rows(
            f"WITH there AS (UPDATE {self.name} SET value = '{value}', version = '{version}' "
            f"WHERE key = '{key}' RETURNING 1) INSERT INTO {self.name} (key, value, version) "
            f"SELECT '{key}', '{value}', '{version}' WHERE NOT EXISTS (SELECT FROM there)"
        )

    def remove(self, key):
        self.server.rows(f"DELETE FROM {self.name} WHERE key = '{key}'")

    def count_up(self, key, first, last, *, pause=0.0):
        """One transaction for each number."""
        self.server.rows(
            f"DO $$ BEGIN FOR n IN {first}..{last} LOOP "
            f"UPDATE {self.name} SET value = n WHERE key = '{key}'; COMMIT; PERFORM pg_sleep({pause}); "
            "END LOOP; END $$"
        )


@pytest.fixture
def table(shared_postgres):
    return Table(shared_postgres)


@pytest.fixture
def own_table(own_postgres):
    return Table(own_postgres)


class Told:
    """What a watch has told, one key after another."""

    def __init__(self):
        self.changes = []
        self._bell = trio.Event()

    async def notify(self, changes):
        self.changes += changes.items()
        self._bell.set()
        self._bell = trio.Event()

    async def until(self, change):
        with trio.fail_after(60):
            while change not in self.changes:
                await self._bell.wait()

    async def more(self):
        with trio.fail_after(60):
            await self._bell.wait()

    def numbers(self, key):
        return [int(item.value) for name, item in self.changes if name == key]


@asynccontextmanager
async def watching(store, *keys, metadata=None):
    told = Told()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, keys, metadata or {}, told.notify, trio.Event()))
        yield told
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("check", configuration.CHECKS, ids=str)
async def test_conformance(check, table):
    async def put(key, value, version):
        await trio.to_thread.run_sync(table.put, key, value, version)

    async def remove(key):
        await trio.to_thread.run_sync(table.remove, key)

    await check.run(configuration.Setup(table.opened, put, remove))


async def test_rows_as_a_daprd_reads_them(table):
    """Of several rows of one key that with the highest number counts."""
    rows = [("a", "1", "1", None), ("a", "10", "10", '{"x": "y"}'), ("a", "9", "9", None)]
    rows += [("b", "first", "x", "null"), ("b", "second", "y", None)]
    for key, value, version, metadata in rows:
        metadata = f"'{metadata}'" if metadata else "NULL"
        table.server.rows(f"INSERT INTO {table.name} VALUES ('{key}', '{value}', '{version}', {metadata})")
    wanted = {"a": ConfigurationItem("10", "10", {"x": "y"}), "b": ConfigurationItem("first", "x")}
    async with table.opened() as store:
        assert await store.get([], {}) == wanted
        assert await store.get(["a", "none", "o'\"dd\\,{}"], {"pgNotifyChannel": "x"}) == {"a": wanted["a"]}
        table.server.rows(f"UPDATE {table.name} SET metadata = '[1]' WHERE value = '9'")
        with pytest.raises(ConfigurationError, match="no JSON object of texts"):
            await store.get(["a"], {})


async def test_every_change_is_told_once_and_in_order(table):
    """Also those that are overwritten at once."""
    table.put("k", "0")
    async with table.opened() as store, watching(store, "k") as one, watching(store) as all_keys:
        await trio.to_thread.run_sync(table.count_up, "k", 1, 500)
        for told in (one, all_keys):
            await told.until(("k", ConfigurationItem("500")))
            assert told.numbers("k") == list(range(1, 501))


async def test_what_the_notification_says_is_what_is_told(table):
    table.server.rows(f"INSERT INTO {table.name} VALUES ('a', '1', '1', NULL), ('a', '2', '2', NULL)")
    async with table.opened() as store, watching(store) as told:
        table.server.rows(f"DELETE FROM {table.name} WHERE value = '1'")  # an older row of the key
        table.server.rows(f"""UPDATE {table.name} SET metadata = '{{"m": "n", "o": 1}}'""")
        table.server.rows(f"UPDATE {table.name} SET value = value")  # nothing is new
        table.server.rows(f"DELETE FROM {table.name}")
        table.put("a", "again", "3")
        await told.until(("a", ConfigurationItem("again", "3")))
    assert told.changes == [
        ("a", ConfigurationItem("2", "2", {"m": "n", "o": "1"})),
        ("a", None),
        ("a", ConfigurationItem("again", "3")),
    ]


async def test_notifications_that_say_nothing(table):
    payloads = [
        "",
        "{",
        "5",
        "[]",
        '{"data": 5}',
        '{"data": {"value": "x"}}',
        '{"data": {"key": 5}}',
        "[" * 7000,
    ]
    async with table.opened() as store, watching(store, "k") as told:
        for payload in payloads:
            table.server.rows(f"SELECT pg_notify('{table.name}', '{payload}')")
        row = json.dumps({"data": {"KEY": "k", "Value": 5, "VERSION": None}})
        table.server.rows(f"SELECT pg_notify('{table.name}', '{row}')")
        await told.until(("k", ConfigurationItem("5")))
    assert len(told.changes) == 1


@pytest.mark.parametrize(
    ("component", "request_", "heard"),
    [
        ("", {"pgNotifyChannel": 'Chan"nel x'}, 'Chan"nel x'),
        ("", {"PGNOTIFYCHANNEL": "Config"}, "config"),
        ("ours", {"pgNotifyChannel": "theirs"}, "ours"),
        ("Ours", {}, "Ours"),
    ],
)
async def test_channels(table, component, request_, heard):
    """The component's goes before the request's; Dapr's folds what is written in capitals."""
    async with table.opened(notify_channel=component) as store:
        async with watching(store, metadata=request_) as told:
            row = json.dumps({"data": {"key": "k", "value": "v"}})
            table.server.rows(f"SELECT pg_notify('theirs', '{row.replace('v', 'w')}')")
            table.server.rows(f"SELECT pg_notify('{heard}', '{row}')")
            await told.until(("k", ConfigurationItem("v")))
        assert len(told.changes) == 1


@pytest.mark.parametrize("request_", [{}, {"pgNotifyChannel": ""}, {"pgNotifyChannel": "x" * 64}], ids=str)
async def test_no_channel(table, request_):
    async with table.opened(notify_channel="") as store:
        with pytest.raises(InvalidArgument, match="pgNotifyChannel"):
            await store.watch([], request_, _never, trio.Event(), task_status=trio.TASK_STATUS_IGNORED)


async def _never(changes):
    raise AssertionError(changes)


async def test_a_reader_that_is_slow(table):
    """More happens than is kept for it: it is told the last value, nothing twice and all in order."""
    table.put("k", "0")
    gate, told = trio.Event(), Told()

    async def notify(changes):
        await told.notify(changes)
        await gate.wait()

    async with table.opened() as store, trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, ["k"], {}, notify, trio.Event()))
        await trio.to_thread.run_sync(table.count_up, "k", 1, 3000)
        await trio.to_thread.run_sync(table.server.wait_for_rows, LISTENING, [(0,)])
        gate.set()
        await told.until(("k", ConfigurationItem("3000")))
        table.put("k", "3001")
        await told.until(("k", ConfigurationItem("3001")))
        nursery.cancel_scope.cancel()
    numbers = told.numbers("k")
    assert numbers == sorted(set(numbers))
    assert numbers[:1000] == list(range(1, 1001))
    assert len(numbers) < 3001


async def test_connections_that_are_cut_while_things_change(table):
    """Whatever falls between two connections, or between listening and reading, is told once and in order."""
    for key in ("k", "l"):
        table.put(key, "0")
    async with table.opened() as store, watching(store, "k", "l") as told:
        cut = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, partial(table.count_up, "k", 1, 400, pause=0.005))
            nursery.start_soon(trio.to_thread.run_sync, partial(table.count_up, "l", 1, 4000))
            for _ in range(10):
                await told.more()
                cut += await trio.to_thread.run_sync(table.server.rows, CUT)
        await told.until(("k", ConfigurationItem("400")))
        await told.until(("l", ConfigurationItem("4000")))
    assert cut
    for key in ("k", "l"):
        numbers = told.numbers(key)
        assert numbers == sorted(set(numbers))


async def test_a_server_that_is_killed_and_comes_back(own_table):
    """What changed while nobody listened is told once, and so is what changes after."""
    for key in ("same", "other", "gone"):
        own_table.put(key, "1", "1")
    server = own_table.server
    keys = ("same", "other", "gone")
    async with own_table.opened() as store, watching(store, *keys) as one, watching(store) as two:
        for turn in range(2):
            await trio.to_thread.run_sync(server.kill)
            with pytest.raises(ComponentUnavailable):
                await store.get(["same"], {})
            with pytest.raises(ComponentUnavailable):
                await store.ping()
            await trio.to_thread.run_sync(server.start)
            own_table.put("other", str(turn), "new")
            (own_table.put if turn else own_table.remove)(*(["gone", "back"] if turn else ["gone"]))
            wanted = [
                ("gone", ConfigurationItem("back") if turn else None),
                ("other", ConfigurationItem(str(turn), "new")),
            ]
            for told in (one, two):
                for change in wanted:
                    await told.until(change)
                assert sorted(told.changes, key=str) == wanted
                told.changes.clear()
            own_table.put("same", f"live {turn}")
            for told in (one, two):
                await told.until(("same", ConfigurationItem(f"live {turn}")))
                assert len(told.changes) == 1
                told.changes.clear()


async def test_a_server_that_is_stopped(own_table):
    """A call can be cancelled or ends by itself; a watch can be ended, or goes on with the server."""
    own_table.put("k", "1")
    limit = timedelta(seconds=1)
    async with own_table.opened(timeout=limit) as store, watching(store, "k") as told:
        stop, ended = trio.Event(), trio.Event()

        async def ending(*, task_status):
            await store.watch(["k"], {}, told.notify, stop, task_status=task_status)
            ended.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(ending)
            await trio.to_thread.run_sync(own_table.server.wait_for_rows, LISTENING, [(2,)])
            own_table.server.signal(signal.SIGSTOP)
            try:
                with trio.fail_after(60):
                    with trio.move_on_after(0.1) as scope:
                        await store.get(["k"], {})
                    assert scope.cancelled_caught
                    with pytest.raises(ComponentUnavailable, match="did not answer within 1 s"):
                        await store.get(["k"], {})
                    stop.set()
                    await ended.wait()
            finally:
                own_table.server.signal(signal.SIGCONT)
        own_table.put("k", "2")
        await told.until(("k", ConfigurationItem("2")))
        assert told.changes == [("k", ConfigurationItem("2"))]


async def test_a_watch_of_a_server_that_is_not_there(own_table):
    async with own_table.opened() as store:
        await trio.to_thread.run_sync(own_table.server.kill)
        with pytest.raises(ComponentUnavailable):
            await store.watch(["k"], {}, _never, trio.Event(), task_status=trio.TASK_STATUS_IGNORED)


async def test_a_watch_leaves_no_connection_behind(table):
    url = f"{table.server.url}?application_name={table.name}"
    ours = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table.name}'"
    async with table.opened(connection_string=url) as store:
        for _ in range(3):
            async with watching(store, "k"):
                pass
        await trio.to_thread.run_sync(table.server.wait_for_rows, ours, [(1,)])
    await trio.to_thread.run_sync(table.server.wait_for_rows, ours, [(0,)])


async def test_no_table_and_no_trigger(table, caplog):
    with pytest.raises(ConfigError, match=r"table: there is no table nowhere \(make it, with the columns"):
        async with table.opened(table="nowhere"):
            pass
    table.server.rows(f"CREATE TABLE {table.name}_quiet (LIKE {table.name})")
    async with table.opened(table=f"public.{table.name}_quiet") as store:
        assert await store.get([], {}) == {}
    assert f"no trigger of public.{table.name}_quiet tells of changes" in caplog.text


async def test_no_server_a_wrong_password_and_a_user_that_may_not_read(table):
    with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
        async with table.opened(host="127.0.0.1", port=str(free_port())):
            pass
    with pytest.raises(ComponentUnavailable, match="password authentication failed"):
        async with table.opened(password="poppy"):
            pass
    table.server.rows("CREATE ROLE nobody_in_particular LOGIN PASSWORD 'x'")
    async with table.opened(user="nobody_in_particular", password="x") as store:
        with pytest.raises(ConfigurationError, match=r"permission denied .*42501"):
            await store.get([], {})
        with pytest.raises(ConfigurationError, match=r"permission denied .*42501"):
            await store.watch([], {}, _never, trio.Event(), task_status=trio.TASK_STATUS_IGNORED)


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"url": "user=u"}, "table: is missing"),
        ({"table": "t"}, "connectionString: is empty"),
        ({"url": "user=u", "table": "a b"}, "table: 'a b' is no table name"),
        ({"url": "user=u", "table": "t", "notifyChannel": "x" * 64}, "notifyChannel: is no channel"),
        ({"url": "user=u", "table": "t", "tableName": "t"}, "unknown metadata name"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_options(Options, metadata)


def test_metadata_as_in_dapr():
    registry = Registry.discover()
    assert registry.driver("configuration.postgresql", "v1") is driver
    assert registry.driver("configuration.postgres", "v1") is postgres
    values = {"connectionString": "host=localhost user=postgres", "table": "configtable", "timeout": "30s"}
    options = load_options(postgres.metadata, values | {"connMaxIdleTime": "5m", "pgNotifyChannel": "config"})
    assert (options.connection_max_idle_time, options.notify_channel) == (timedelta(minutes=5), "config")
