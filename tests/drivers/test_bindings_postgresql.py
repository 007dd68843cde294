"""bindings.postgresql against a real server.

The answers expected were taken from the library that Dapr uses.
"""

from __future__ import annotations

import json
import signal
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from meshnode_postgresql._dsn import parse_dsn
from meshnode_postgresql._gotime import format_duration, parse_duration
from meshnode_postgresql.bindings import Options, driver, postgres
from support.certificates import Authority
from support.postgres_servers import find_postgres, postgres_server

from meshnode.errors import BindingError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import BindingRequest, DriverContext, OutputBinding
from meshnode.registry import load_options
from meshnode.testing.conformance import bindings

CONTEXT = DriverContext("db", "app")
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ours'"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def shared(authority):
    if find_postgres() is None:
        pytest.skip("postgres is not installed")
    with postgres_server(authority.issue("postgres")) as server:
        yield server


@pytest.fixture
def own(shared):
    """The same server for a test that stops or kills it."""
    yield shared
    if not shared.running:
        shared.start()


@asynccontextmanager
async def opened(server, *, context=CONTEXT, url="", **options):
    given_options = Options(connection_string=url or server.url, **options)
    async with driver.open(given_options, context) as binding:
        yield binding


async def query(binding, sql, params=None):
    metadata = {"sql": sql} if params is None else {"sql": sql, "params": json.dumps(params)}
    return json.loads((await binding.invoke(BindingRequest("query", metadata=metadata))).data)


async def execute(binding, sql, params=None):
    metadata = {"sql": sql} if params is None else {"sql": sql, "params": json.dumps(params)}
    return int((await binding.invoke(BindingRequest("exec", metadata=metadata))).metadata["rows-affected"])


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_conformance(check, shared):
    example = BindingRequest("query", metadata={"sql": "SELECT 1"})
    assert await check.run(bindings.OutputSetup(lambda: opened(shared), example))


async def test_a_table_s_life(shared):
    async with opened(shared) as binding:
        assert isinstance(binding, OutputBinding)
        assert binding.operations == ("exec", "query", "close")
        assert await execute(binding, "CREATE TABLE foo (id int, c1 text, ts timestamptz)") == 0
        insert = "INSERT INTO foo VALUES ($1, $2, $3)"
        assert await execute(binding, insert, [0, "test-0", "2020-09-24T11:45:05+02:00"]) == 1
        assert await execute(binding, insert, [1, None, None]) == 1
        assert await execute(binding, "UPDATE foo SET id = id + $1", [10]) == 2
        rows = await query(binding, "SELECT * FROM foo ORDER BY id")
        assert rows == [[10, "test-0", "2020-09-24T09:45:05Z"], [11, None, None]]
        assert await query(binding, "SELECT * FROM foo WHERE id > $1", [99]) == []
        assert await query(binding, "DELETE FROM foo WHERE id = 10 RETURNING c1") == [["test-0"]]
        assert await query(binding, "DROP TABLE foo") == []


async def test_metadata_of_an_answer(shared):
    clock = iter([1_600_000_000.25, 1_600_000_001.5])
    async with opened(shared, context=DriverContext("db", "app", wall=lambda: next(clock))) as binding:
        result = await binding.invoke(BindingRequest("query", metadata={"sql": "SELECT 1", "params": "[]"}))
    assert result.data == b"[[1]]"
    assert result.metadata == {
        "operation": "query",
        "sql": "SELECT 1",
        "start-time": "2020-09-13T12:26:40.25Z",
        "end-time": "2020-09-13T12:26:41.5Z",
        "duration": "1.25s",
    }


UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
BYTES = list(uuid.UUID(UUID).bytes)


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("1::int2, 2::int4, 3::int8, 4::oid, 5::text::xid", "1,2,3,4,5"),
        ("1.5::float4, 2.5::float8, 1e30::float8, 1e-10::float8, 0.1::float4", "1.5,2.5,1e+30,1e-10,0.1"),
        ("12.340::numeric, 'NaN'::numeric, 123456789012345678901234567890::numeric",
         '12.340,"NaN",123456789012345678901234567890'),
        ("true, false, NULL", "true,false,null"),
        ("""'a"<\\ü'::text, 'v'::varchar, 'c'::char(3), 'n'::name, 'x'::"char" """,
         '"a\\"<\\\\ü","v","c  ","n",120'),
        ("'\\xdeadbeef'::bytea, ''::bytea", '"3q2+7w==",""'),
        ("'2020-09-24 11:13:46.405097+02'::timestamptz, "
         "'2020-09-24 11:13:46.50'::timestamp, '2020-09-24'::date",
         '"2020-09-24T09:13:46.405097Z","2020-09-24T11:13:46.5Z","2020-09-24T00:00:00Z"'),
        ("'10:11:12.5'::time, '10:11:12+02'::timetz",
         '{"Microseconds":36672500000,"Valid":true},"10:11:12+02"'),
        ("'1 year 2 mons 3 days 04:05:06.7'::interval, '1 day'::interval",
         '{"Microseconds":14706700000,"Days":3,"Months":14,"Valid":true},'
         '{"Microseconds":0,"Days":1,"Months":0,"Valid":true}'),
        ("'-1 days +02:03:00'::interval, '-00:00:01.5'::interval",
         '{"Microseconds":7380000000,"Days":-1,"Months":0,"Valid":true},'
         '{"Microseconds":-1500000,"Days":0,"Months":0,"Valid":true}'),
        (f"'{UUID}'::uuid", str(BYTES).replace(" ", "")),
        ("""'{"b":1,"a":[1.5,null]}'::json, '{"a":2}'::jsonb, 'null'::jsonb""",
         '{"b":1,"a":[1.5,null]},{"a": 2},null'),
        ("array[1,2,null], array['a','b c','NULL',null,'','\"\\'], '{}'::int4[]",
         '[1,2,null],["a","b c","NULL",null,"","\\"\\\\"],[]'),
        ("array[[1,2],[3,4]], '[0:1]={5,6}'::int4[], array[true,false]", "[1,2,3,4],[5,6],[true,false]"),
        (f"array['{UUID}'::uuid], array['2020-09-24'::date], array['{{\"a\": [1]}}'::jsonb]",
         f'[{str(BYTES).replace(" ", "")}],["2020-09-24T00:00:00Z"],[{{"a": [1]}}]'),
        ("'10.0.0.1'::inet, '::1'::inet, '10.0.0.0/8'::cidr, '08:00:2b:01:02:03'::macaddr",
         '"10.0.0.1/32","::1/128","10.0.0.0/8","CAArAQID"'),
        ("5::money, point(1,2), '<a/>'::xml", '"$5.00","(1,2)","PGEvPg=="'),
        # What Dapr writes otherwise, or cannot write.
        ("int4range(1,5), '101'::bit(3), row(1,'a')", '"[1,5)","101","(1,a)"'),
        ("'infinity'::timestamptz, '-infinity'::date, 'infinity'::timestamp",
         '"infinity","-infinity","infinity"'),
        ("'2020-01-01 00:00:00+00 BC'::timestamptz, '12020-01-01'::date",
         '"2020-01-01 00:00:00+00 BC","12020-01-01"'),
    ],
)  # fmt: skip
async def test_values(shared, sql, text):
    settings = "&timezone=UTC&lc_monetary=C"
    async with opened(shared, url=f"{shared.url}?{settings[1:]}") as binding:
        result = await binding.invoke(BindingRequest("query", metadata={"sql": f"SELECT {sql}"}))
    assert result.data.decode() == f"[[{text}]]"
    json.loads(result.data)


async def test_what_json_cannot_say(shared):
    async with opened(shared) as binding:
        for value in ("NaN", "Infinity", "-Infinity"):
            with pytest.raises(BindingError, match=f"{value} has no place in JSON"):
                await query(binding, f"SELECT '{value}'::float8")


async def test_styles_of_the_server_do_not_matter(shared):
    url = (
        f"{shared.url}?DateStyle=SQL,%20DMY&IntervalStyle=iso_8601&TimeZone=Asia/Kolkata&bytea_output=escape"
    )
    sql = (
        "SELECT '2020-09-24 10:00+00'::timestamptz, '2020-09-24'::date, "
        "'1 day 00:00:01'::interval, '\\x00ff'::bytea"
    )
    async with opened(shared, url=url) as binding:
        (row,) = await query(binding, sql)
    interval = {"Microseconds": 1000000, "Days": 1, "Months": 0, "Valid": True}
    assert row == ["2020-09-24T10:00:00Z", "2020-09-24T00:00:00Z", interval, "AP8="]


@pytest.mark.parametrize(
    ("kind", "value", "answer"),
    [
        ("int4", 5, 5),
        ("int4", 5.0, 5),
        ("int4", "7", 7),
        ("int8", 2**62 + 1, 2**62 + 1),
        ("numeric", 1.25, 1.25),
        ("float8", 1e300, 1e300),
        ("text", "x'\"\\ü", "x'\"\\ü"),
        ("text", 5, "5"),
        ("bool", True, True),
        ("timestamptz", "2020-09-24T11:45:05Z", "2020-09-24T11:45:05Z"),
        ("uuid", UUID, BYTES),
        ("bytea", "\\x6869", "aGk="),
        ("jsonb", {"a": [1, "ü"]}, {"a": [1, "ü"]}),
        ("jsonb", '{"a":1}', {"a": 1}),
        ("jsonb", [1, "b", None, 1.5], [1, "b", None, 1.5]),
        ("json", [], []),
        ("jsonb", 5, 5),
        ("jsonb", True, True),
        ("int4[]", [1, 2, None], [1, 2, None]),
        ("text[]", ["a", 'b "c\\', None, "NULL", ""], ["a", 'b "c\\', None, "NULL", ""]),
        ("int4[]", [[1, 2], [3, 4]], [1, 2, 3, 4]),
        ("jsonb[]", [{"a": 1}], [{"a": 1}]),
        ("int4", None, None),
    ],
)
async def test_parameters(shared, kind, value, answer):
    async with opened(shared) as binding:
        assert await query(binding, f"SELECT $1::{kind}", [value]) == [[answer]]
        assert await query(binding, f"SELECT $1::{kind}, $2::text[]", [value, ["x"]]) == [[answer, ["x"]]]


async def test_several_statements(shared):
    async with opened(shared) as binding:
        sql = "CREATE TABLE many (a int); INSERT INTO many VALUES (1), (2); UPDATE many SET a = 3"
        assert await execute(binding, sql) == 2
        with pytest.raises(BindingError, match="division by zero"):
            await execute(binding, "INSERT INTO many VALUES (4); SELECT 1/0; INSERT INTO many VALUES (5)")
        assert await query(binding, "SELECT count(*) FROM many") == [[2]]
        with pytest.raises(BindingError, match="cannot insert multiple commands"):
            await query(binding, "SELECT 1; SELECT 2")
        assert await execute(binding, "DROP TABLE many") == 0
        assert await execute(binding, ";") == 0


@pytest.mark.parametrize(
    ("sql", "params", "complaint"),
    [
        ("SELEC 1", None, r"error executing query: ERROR: syntax error .* \(SQLSTATE 42601\)"),
        ("SELECT * FROM nowhere", None, r'relation "nowhere" does not exist \(SQLSTATE 42P01\)'),
        ("SELECT 1/(3-x) FROM generate_series(1,5) x", None, "division by zero"),
        ("SELECT $1::int", ["x"], "invalid input syntax"),
        ("SELECT $1::int, $2::int", [1], "bind message supplies 1 parameters"),
        ("SELECT 1", [1], "bind message supplies 1 parameters"),
        ("COPY pg_class TO STDOUT", None, "COPY from and to the client is not offered"),
        ("COPY pg_class FROM STDIN", None, "COPY|permission denied"),
    ],
)
async def test_errors_of_the_server(shared, sql, params, complaint):
    async with opened(shared) as binding:
        for run in (query, execute):
            with pytest.raises(BindingError, match=complaint) as caught:
                await run(binding, sql, params)
            assert not isinstance(caught.value, ComponentUnavailable)
        assert await query(binding, "SELECT 1") == [[1]]


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "required metadata not set: sql"),
        ({"sql": ""}, "required metadata not set: sql"),
        ({"sql": "SELECT 1\0"}, "no NUL character"),
        ({"sql": "SELECT 1", "params": "1,2"}, "params is no JSON"),
        ({"sql": "SELECT 1", "params": '{"a":1}'}, "params must be a JSON list"),
        ({"sql": "SELECT 1", "params": "[NaN]"}, "params is no JSON"),
        ({"sql": "SELECT 1", "params": '["a\\u0000b"]'}, "no NUL character"),
        ({"sql": "SELECT 1", "params": '["\\ud800"]'}, "half a character"),
        ({"sql": "SELECT $1::int[]", "params": "[[1],[2]]"}, "params has 2 values, the statement 1"),
        ({"sql": "SELECT 1", "params": "[" * 100_000}, "params is no JSON"),
        ({"sql": "SELECT 1", "params": json.dumps([0] * 65536)}, "more than 65535"),
    ],
)
async def test_requests_that_can_never_be_right(shared, metadata, complaint):
    async with opened(shared) as binding:
        for operation in ("query", "exec"):
            with pytest.raises(InvalidArgument, match=complaint):
                await binding.invoke(BindingRequest(operation, metadata=metadata))
        with pytest.raises(InvalidArgument, match="invalid operation type: get"):
            await binding.invoke(BindingRequest("get", metadata=metadata))


async def test_closed_is_closed(shared):
    async with opened(shared, url=f"{shared.url}?application_name=ours") as binding:
        assert await query(binding, "SELECT 1") == [[1]]
        for _ in range(2):
            result = await binding.invoke(BindingRequest("close"))
            assert (result.data, result.metadata) == (b"", {})
        with pytest.raises(BindingError, match="component is closed"):
            await query(binding, "SELECT 1")
        await trio.to_thread.run_sync(shared.wait_for_rows, OURS, [(0,)])


async def test_close_lets_what_is_under_way_finish(shared):
    async with opened(shared, url=f"{shared.url}?application_name=ours") as binding:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(query, binding, "SELECT pg_sleep(0.3)")
            await trio.to_thread.run_sync(shared.wait_for_rows, BUSY, [(1,)])
            await binding.invoke(BindingRequest("close"))
        await trio.to_thread.run_sync(shared.wait_for_rows, OURS, [(0,)])


async def test_never_more_connections_than_allowed(shared):
    most = 0
    async with opened(shared, url=f"{shared.url}?application_name=ours", max_conns=3) as binding:

        async def one():
            nonlocal most
            ((count,),) = await query(binding, f"{OURS} AND pg_sleep(0.02) IS NOT NULL")
            most = max(most, count)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
    assert most == 3
    await trio.to_thread.run_sync(shared.wait_for_rows, OURS, [(0,)])


async def test_connections_are_used_again(shared):
    async with opened(shared) as binding:
        pids = {(await query(binding, "SELECT pg_backend_pid()"))[0][0] for _ in range(5)}
        with pytest.raises(BindingError):
            await query(binding, "SELECT 1/0")
        pids.add((await query(binding, "SELECT pg_backend_pid()"))[0][0])
    assert len(pids) == 1


async def test_a_transaction_left_open_is_rolled_back(shared):
    async with opened(shared) as binding:
        await execute(binding, "CREATE TABLE half (a int)")
        await execute(binding, "BEGIN; INSERT INTO half VALUES (1)")
        assert await query(binding, "SELECT count(*) FROM half") == [[0]]
        await execute(binding, "BEGIN; INSERT INTO half VALUES (1); COMMIT")
        assert await query(binding, "SELECT count(*) FROM half") == [[1]]
        await execute(binding, "DROP TABLE half")


async def test_old_connections_are_closed(shared):
    url = f"{shared.url}?application_name=ours&pool_health_check_period=10ms"
    async with opened(shared, url=url, connection_max_idle_time=timedelta(milliseconds=1)):
        await trio.to_thread.run_sync(shared.wait_for_rows, OURS, [(0,)])


async def test_a_cancelled_query_ends_at_the_server(shared):
    async with opened(shared, max_conns=2) as binding:
        before = await query(binding, "SELECT pg_backend_pid()")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(query, binding, "SELECT pg_sleep(60)")
            await trio.to_thread.run_sync(shared.wait_for_rows, BUSY, [(1,)])
            nursery.cancel_scope.cancel()
        assert shared.rows(BUSY) == [(0,)]
        # The connection has survived.
        assert await query(binding, "SELECT pg_backend_pid()") == before


async def test_cancelled_while_it_waits_for_its_turn(shared):
    async with opened(shared, max_conns=2) as binding, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(query, binding, "SELECT pg_sleep(60)")
        await trio.to_thread.run_sync(shared.wait_for_rows, BUSY, [(2,)])
        with trio.move_on_after(0.05) as scope:
            await query(binding, "SELECT 1")
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_killed_and_brought_back(own):
    async with opened(own) as binding:
        await execute(binding, "CREATE TABLE kept (a int)")
        for n in range(3):
            await execute(binding, "INSERT INTO kept VALUES ($1)", [n])
        own.kill()
        with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
            await query(binding, "SELECT 1")
        own.start()
        assert await query(binding, "SELECT a FROM kept ORDER BY a") == [[0], [1], [2]]


async def test_killed_during_a_query(own):
    async with opened(own) as binding:
        failures = []

        async def one():
            with pytest.raises(ComponentUnavailable) as caught:
                await query(binding, "SELECT pg_sleep(60)")
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
            await trio.to_thread.run_sync(own.wait_for_rows, BUSY, [(3,)])
            await trio.to_thread.run_sync(own.kill)
        assert len(failures) == 3
        own.start()
        assert await query(binding, "SELECT 1") == [[1]]


async def test_stopped_in_an_orderly_way(own):
    """The server says goodbye to idle connections; the next call does not stumble over one."""
    async with opened(own) as binding:
        assert await query(binding, "SELECT 1") == [[1]]
        own.stop()
        own.start()
        assert await query(binding, "SELECT 1") == [[1]]


async def test_paused(own):
    """A server that does not answer holds nobody longer than the three seconds a cancellation may take."""
    async with opened(own, timeout=timedelta(seconds=1)) as binding:
        assert await query(binding, "SELECT 1") == [[1]]
        own.signal(signal.SIGSTOP)
        try:
            with trio.fail_after(30):
                with trio.move_on_after(0.1) as scope:
                    await query(binding, "SELECT 2")
                assert scope.cancelled_caught
                with pytest.raises(ComponentUnavailable, match="did not answer within 1 s"):
                    await query(binding, "SELECT 3")
        finally:
            own.signal(signal.SIGCONT)
        assert await query(binding, "SELECT 4") == [[4]]


async def test_wrong_password_and_nobody_there(shared):
    with pytest.raises(ComponentUnavailable, match="password authentication failed") as caught:
        async with opened(shared, url=shared.url.replace("sesame", "poppy")):
            pass
    assert "poppy" not in str(caught.value)
    with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
        async with opened(shared, url="host=127.0.0.1 port=1 user=x"):
            pass
    with pytest.raises(ComponentUnavailable, match=r"cannot find the host nowhere\.invalid"):
        async with opened(shared, url="host=nowhere.invalid user=x"):
            pass


async def test_ways_to_say_where(shared):
    who = f"port={shared.port} user=tester password='sesame'"
    words = f"host=127.0.0.1 {who} database=postgres search_path='\"a b\", c'"
    several = f"postgres://tester:sesame@127.0.0.1:1,nowhere.invalid:1,localhost:{shared.port}/postgres?sslmode=disable"
    socket = f"host={shared.folder} {who} dbname=postgres"
    for url in (words, several, socket):
        async with opened(shared, url=url) as binding:
            assert await query(binding, "SELECT current_user") == [["tester"]]
    async with opened(shared, url=words) as binding:
        assert await query(binding, "SHOW search_path") == [['"a b", c']]


async def test_tls(shared, authority, tmp_path):
    good, other = tmp_path / "good.pem", tmp_path / "other.pem"
    good.write_text(authority.certificate)
    other.write_text(Authority().certificate)
    sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    for mode, encrypted in [("disable", False), ("prefer", True), (f"verify-full&sslrootcert={good}", True)]:
        async with opened(shared, url=f"{shared.url}?sslmode={mode}") as binding:
            assert await query(binding, sql) == [[encrypted]]
            assert await query(binding, "SELECT length($1)", ["y" * 1_000_000]) == [[1_000_000]]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(query, binding, "SELECT pg_sleep(60)")
                await trio.to_thread.run_sync(shared.wait_for_rows, BUSY, [(1,)])
                nursery.cancel_scope.cancel()
            assert shared.rows(BUSY) == [(0,)]
    with pytest.raises(ComponentUnavailable, match="SSL error"):
        async with opened(shared, url=f"{shared.url}?sslmode=verify-ca&sslrootcert={other}"):
            pass


async def test_a_large_answer_and_a_large_question(shared):
    async with opened(shared) as binding:
        rows = await query(binding, "SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
        assert len(rows) == 3000
        text = "y" * 3_000_000
        assert await query(binding, "SELECT length($1)", [text]) == [[len(text)]]


def test_connection_strings():
    dsn = parse_dsn(
        "postgres://u:p%40ss@h:5433/db?sslmode=require&pool_max_conns=7&pool_max_conn_idle_time=5m&a.b=c+d%26"
    )
    assert dsn.settings == {
        "user": "u",
        "password": "p@ss",
        "host": "h",
        "port": "5433",
        "dbname": "db",
        "sslmode": "require",
        "options": "-c a.b=c\\ d&",
        "client_encoding": "UTF8",
        "gssencmode": "disable",
    }
    assert (dsn.max_connections, dsn.max_idle, dsn.max_lifetime) == (7, 300, 3600)
    assert "p@ss" not in repr(dsn)
    words = parse_dsn(
        r"user=u password='it\'s \\' host = h  dbname=d connect_timeout=3 statement_cache_capacity=9"
    )
    assert words.settings["password"] == "it's \\"
    assert words.connect_timeout == 3
    assert "options" not in words.settings


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "connectionString: is empty"),
        ({"connectionString": ""}, "connectionString: is empty"),
        ({"connectionString": "hush"}, "connectionString: is neither a URL nor words"),
        ({"connectionString": "user=u password='hush"}, "connectionString: is neither a URL nor words"),
        ({"connectionString": "postgres://u:hush@[::1"}, "connectionString: is no valid URL"),
        ({"connectionString": "user=u pool_max_conns=0"}, "pool_max_conns must be a whole number from 1 on"),
        ({"connectionString": "user=u pool_max_conn_lifetime=1"}, "pool_max_conn_lifetime is no duration"),
        ({"connectionString": "user=u connect_timeout=soon"}, "connect_timeout must be a whole number"),
        ({"connectionString": "user=u a-b=c"}, "has a name that means nothing"),
        ({"url": "user=u", "connectionString": "user=u"}, "means the same as"),
        ({"url": "user=u", "useAzureAD": "true"}, "useAzureAD: is not offered by this driver"),
        ({"url": "user=u", "useAWSIAM": "true"}, "useAWSIAM: is not offered by this driver"),
        ({"url": "user=u", "timeout": "0"}, "timeout: must be above 0"),
        ({"url": "user=u", "connectionMaxIdleTime": "-1s"}, "must not be negative"),
        ({"url": "user=u", "queryExecMode": "fast"}, "queryExecMode"),
        ({"url": "user=u", "maxCons": "3"}, "unknown metadata name .*maxConns"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_options(Options, metadata)
    assert "hush" not in str(caught.value)


def test_dapr_s_own_fields_are_understood():
    options = load_options(
        postgres.metadata,
        {"url": "user=u", "timeoutInSeconds": "30", "maxConns": "4", "connectionMaxIdleTime": "5m"}
        | {"queryExecMode": "simple_protocol", "useAzureAD": "false", "awsRegion": "x", "awsAccessKey": "x"}
        | {"awsSecretKey": "x", "awsSessionToken": "x", "useAWSIAM": "false"},
    )
    assert (options.timeout, options.max_conns) == (timedelta(seconds=30), 4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.000294, "294µs"),
        (0.0015, "1.5ms"),
        (1.25, "1.25s"),
        (90.5, "1m30.5s"),
        (3600, "1h0m0s"),
        (-1, "0s"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
    if text[0] != "-" and seconds >= 0:
        assert parse_duration(text) == pytest.approx(seconds)


@given(
    st.dictionaries(st.sampled_from(["user", "password", "host", "dbname"]), st.text(min_size=1), min_size=1)
)
def test_words_of_any_text(values):
    text = " ".join(
        f"{name}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" for name, value in values.items()
    )
    assert {name: parse_dsn(text).settings[name] for name in values} == values


@given(st.text())
def test_no_text_is_taken_amiss(text):
    try:
        parse_dsn(text)
    except ConfigError:
        pass
