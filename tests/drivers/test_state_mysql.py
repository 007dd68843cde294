"""state.mysql on a real MariaDB: the conformance suite, Dapr's layout, and what is its own."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pymysql
import pytest
import trio
from meshnode_state_mysql import Options, driver
from support.certificates import Authority
from support.mariadb_servers import find_mariadb, mariadb_server

from meshnode.errors import (
    BulkStateError,
    ComponentUnavailable,
    ConfigError,
    EtagMismatch,
    NotImplementedHere,
    StateError,
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
from meshnode.testing.conformance import state

pytestmark = pytest.mark.skipif(find_mariadb() is None, reason="MariaDB is not installed")

CONTEXT = DriverContext("statestore", "app")
CHECKS = [check for check in state.CHECKS if Feature.QUERY_API not in check.needs]

# As a daprd makes its table, written down from what it leaves in a database.
DAPRS_TABLE = """
CREATE TABLE state (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL, isbinary BOOLEAN NOT NULL,
    insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    eTag VARCHAR(36) NOT NULL, expiredate TIMESTAMP NULL, INDEX expiredate_idx (expiredate))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mariadb_server(tmp_path_factory.mktemp("mariadb")) as running:
        yield running


@pytest.fixture
def schema(server, request):
    """A name that nobody else uses, and no database of it left behind."""
    name = re.sub(r"\W", "_", request.node.name)[:60]
    yield name
    server.rows(f"DROP DATABASE IF EXISTS {name}")


def options(server, schema, **more):
    return Options(**{"connection_string": server.dsn, "schema_name": schema, **more})


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check, server):
    assert await check.run(lambda: driver.open(options(server, "conformance"), CONTEXT))


async def test_layout_is_dapr_s(server, schema):
    async with driver.open(options(server, schema), CONTEXT) as store:
        await store.set(SetRequest("app||text", b'{"a":1}'))
        await store.set(SetRequest("app||binary", b"\x00\xff", ttl=60))
    tables = server.rows("SHOW TABLES", schema=schema)
    assert tables == [("dapr_metadata",), ("state",)]
    columns = server.rows("SHOW COLUMNS FROM state", schema=schema)
    assert [(name, kind, null, key) for name, kind, null, key, *_ in columns] == [
        ("id", "varchar(768)", "NO", "PRI"),
        ("value", "longtext", "NO", ""),
        ("isbinary", "tinyint(1)", "NO", ""),
        ("insertDate", "timestamp", "NO", ""),
        ("updateDate", "timestamp", "NO", ""),
        ("eTag", "varchar(36)", "NO", ""),
        ("expiredate", "timestamp", "YES", "MUL"),
    ]
    rows = server.rows("SELECT id, value, isbinary, eTag, expiredate FROM state ORDER BY id", schema=schema)
    assert [row[:3] for row in rows] == [
        ("app||binary", '"AP8="', 1),
        ("app||text", '"eyJhIjoxfQ=="', 1),
    ]
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", row[3]) for row in rows)
    assert [row[4] is None for row in rows] == [False, True]
    # What a daprd asks for a value, word by word.
    asked = server.rows(
        'SELECT id, value, eTag, isbinary, IFNULL(expiredate, "") FROM state WHERE id = %s '
        "AND (expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)",
        "app||binary",
        schema=schema,
    )
    assert [row[1] for row in asked] == ['"AP8="']


async def test_reads_and_continues_what_daprd_wrote(server, schema, caplog):
    server.rows(f"CREATE DATABASE {schema}")
    server.rows(DAPRS_TABLE, schema=schema)
    insert = "INSERT INTO state (id, value, eTag, isbinary, expiredate) VALUES (%s, %s, %s, %s, {})"
    server.rows(insert.format("NULL"), "app||a", '"eyJjaXR5IjogIk9zbG8ifQ=="', "e1", 1, schema=schema)
    server.rows(insert.format("NULL"), "app||b", '{"city":"Bergen"}', "e2", 0, schema=schema)
    later = "CURRENT_TIMESTAMP + INTERVAL 600 SECOND"
    server.rows(insert.format(later), "app||c", '"eA=="', "e3", 1, schema=schema)
    gone = "CURRENT_TIMESTAMP - INTERVAL 1 SECOND"
    server.rows(insert.format(gone), "app||d", '"eA=="', "e4", 1, schema=schema)
    server.rows(insert.format("NULL"), "app||e", '"no base64"', "e5", 1, schema=schema)
    async with driver.open(options(server, schema), CONTEXT) as store:
        answers = await store.bulk_get([GetRequest(f"app||{name}") for name in "abcde"], 0)
        assert [one.result and (one.result.data, one.result.etag) for one in answers] == [
            (b'{"city": "Oslo"}', "e1"),
            (b'{"city":"Bergen"}', "e2"),
            (b"x", "e3"),
            None,
            None,
        ]
        assert isinstance(answers[4].error, StateError)
        with pytest.raises(StateError, match="isbinary"):
            await store.get(GetRequest("app||e"))
        await store.set(SetRequest("app||a", b"2", etag="e1"))
        await store.set(SetRequest("app||d", b"3", concurrency=Concurrency.FIRST_WRITE))
        # The table's own rule: daprd's keys know no case, and every way of reading agrees on it.
        one, other = [await store.get(GetRequest(key)) for key in ("app||B", "app||b")]
        assert one == other == (await store.bulk_get([GetRequest("app||B")], 0))[0].result
    assert "keys that differ in case only" in caplog.text


async def test_what_daprd_calls_works_on_our_table(server, schema):
    """Its procedure for first writes compares a key in a variable with one in the column."""
    async with driver.open(options(server, schema), CONTEXT) as store:
        await store.set(SetRequest("app||k", b"1"))
        server.rows(
            "CREATE PROCEDURE DaprSaveFirstWriteV1(tableName VARCHAR(255), id VARCHAR(255), value JSON) "
            "BEGIN SET @id = id; SET @value = value; "
            "SET @query = concat('SELECT COUNT(id) INTO @count FROM ', tableName, ' WHERE id = ?'); "
            "PREPARE statement FROM @query; EXECUTE statement USING @id; DEALLOCATE PREPARE statement; "
            "IF @count > 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'Row already exists'; END IF; "
            "SET @query = concat('INSERT INTO ', tableName, ' SET id=?, value=?, eTag=1, isbinary=1'); "
            "PREPARE statement FROM @query; EXECUTE statement USING @id, @value; END",
            schema=schema,
        )
        call = "CALL DaprSaveFirstWriteV1('state', %s, %s)"
        with pytest.raises(pymysql.err.OperationalError, match="already exists"):
            server.rows(call, "app||k", '"Mg=="', schema=schema)
        server.rows(call, "app||new", '"Mg=="', schema=schema)
        found = await store.get(GetRequest("app||new"))
        assert found is not None
        assert found.data == b"2"


async def test_a_table_from_before_times_to_live(server, schema):
    server.rows(f"CREATE DATABASE {schema}")
    server.rows(
        "CREATE TABLE old (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL, "
        "isbinary BOOLEAN NOT NULL, insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, "
        "updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, "
        "eTag VARCHAR(36) NOT NULL)",
        schema=schema,
    )
    for _ in range(2):
        async with driver.open(options(server, schema, table_name="old"), CONTEXT) as store:
            await store.set(SetRequest("k", b"v", ttl=600))
            found = await store.get(GetRequest("k"))
            assert found is not None
            assert "ttlExpireTime" in found.metadata


async def test_times_to_live_are_told_in_utc(server, schema):
    """Whatever zone the server and the connection string have."""
    dsn = f"{server.dsn}?parseTime=true&loc=Local&time_zone=%27%2B09%3A00%27&innodb_lock_wait_timeout=7"
    async with driver.open(options(server, schema, connection_string=dsn), CONTEXT) as store:
        await store.set(SetRequest("k", b"v", ttl=3600))
        found = await store.get(GetRequest("k"))
        assert found is not None
        left = datetime.fromisoformat(found.metadata["ttlExpireTime"]) - datetime.now(UTC)
        assert timedelta(minutes=50) < left < timedelta(minutes=70)


async def test_long_keys(server, schema):
    async with driver.open(options(server, schema), CONTEXT) as store:
        await store.set(SetRequest("ű" * 768, b"v"))
        assert await store.get(GetRequest("ű" * 768)) is not None
        with pytest.raises(StateError, match="too long"):
            await store.set(SetRequest("k" * 769, b"v"))
        with pytest.raises(BulkStateError) as caught:
            await store.bulk_set([SetRequest("a", b"1"), SetRequest("k" * 769, b"2"), SetRequest("b", b"3")])
        assert set(caught.value.failures) == {1}
        answers = await store.bulk_get([GetRequest("a"), GetRequest("b")], 0)
        assert [one.result and one.result.data for one in answers] == [b"1", b"3"]
        await store.set(SetRequest("k ", b"with a space"))
        assert await store.get(GetRequest("k")) is None


async def test_sweep_removes_expired_rows(server, schema):
    given = options(server, schema, cleanup_interval=timedelta(milliseconds=200))
    async with driver.open(given, CONTEXT) as store:
        await store.bulk_set([SetRequest(f"k{number}", b"v", ttl=1) for number in range(2500)])
        await store.set(SetRequest("stays", b"v"))
        with trio.fail_after(20):
            while server.rows("SELECT count(*) FROM state", schema=schema) != [(1,)]:
                await store.ping()
        assert await store.get(GetRequest("stays")) is not None
    ((name, moment),) = server.rows("SELECT id, value FROM dapr_metadata", schema=schema)
    assert name == "last-cleanup"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", moment)


async def test_no_sweep_when_another_has_just_swept(server, schema):
    given = options(server, schema, cleanup_interval=timedelta(milliseconds=150))
    async with driver.open(options(server, schema), CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
    server.rows("INSERT INTO dapr_metadata VALUES ('last-cleanup', '2037-01-01 00:00:00')", schema=schema)
    server.rows("UPDATE state SET expiredate = '2020-01-01'", schema=schema)

    def asked():
        return int(server.rows("SHOW GLOBAL STATUS LIKE 'Com_insert'")[0][1])

    before = asked()
    async with driver.open(given, CONTEXT) as store:
        with trio.fail_after(20):
            while asked() < before + 3:
                assert await store.get(GetRequest("k")) is None
    assert server.rows("SELECT id FROM state", schema=schema) == [("k",)]


async def test_queries_are_not_offered(server, schema):
    async with driver.open(options(server, schema), CONTEXT) as store:
        with pytest.raises(NotImplementedHere):
            await store.query(QueryRequest())


async def test_a_user_who_may_only_use_the_tables(server, schema):
    """What is there needs no right to make it."""
    async with driver.open(options(server, schema), CONTEXT):
        pass
    server.rows("CREATE OR REPLACE USER clerk@'%%' IDENTIFIED BY 'p@ss:w/rd?'")
    server.rows(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.* TO clerk@'%%'")
    dsn = f"clerk:p@ss:w/rd?@tcp({server.address})/"
    async with driver.open(options(server, schema, connection_string=dsn), CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
        await store.delete(DeleteRequest("k", etag=(await store.get(GetRequest("k"))).etag))
    with pytest.raises(StateError, match="denied"):
        async with driver.open(options(server, f"{schema}2", connection_string=dsn), CONTEXT):
            pass


async def test_over_a_unix_socket(server, schema):
    dsn = f"tester:sesame@unix({server.socket})/"
    async with driver.open(options(server, schema, connection_string=dsn), CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
        assert await store.get(GetRequest("k")) is not None


async def test_a_deadlock_s_victim_begins_again(server, schema):
    """Somebody else locks rows in the other order, in a transaction that has more to lose: ours is undone."""

    def status(name):
        return int(server.rows(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1])

    async with driver.open(options(server, schema), CONTEXT) as store:
        others = [f"c{number}" for number in range(100)]
        await store.bulk_set([SetRequest(name, b"0") for name in ("a", "b", *others)])
        before = status("Innodb_deadlocks")
        with closing(server.connect(database=schema)) as other, other.cursor() as cursor:
            for number in range(4):
                cursor.execute("BEGIN")
                cursor.execute("UPDATE state SET eTag = %s WHERE id > 'a'", (number,))
                async with trio.open_nursery() as nursery:
                    pair = [SetRequest("a", b"%d" % number), SetRequest("b", b"%d" % number)]
                    nursery.start_soon(store.transact, pair, {})
                    while status("Innodb_row_lock_current_waits") == 0:
                        await trio.lowlevel.checkpoint()
                    cursor.execute("UPDATE state SET eTag = 'x' WHERE id = 'a'")
                    cursor.execute("COMMIT")
                answers = await store.bulk_get([GetRequest("a"), GetRequest("b")], 0)
                assert [one.result and one.result.data for one in answers] == [b"%d" % number] * 2
        assert status("Innodb_deadlocks") == before + 4


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    authority = Authority()
    folder = tmp_path_factory.mktemp("tls")
    ca, certificate, key = authority.write(folder, "server")
    tls = [f"--ssl-ca={ca}", f"--ssl-cert={certificate}", f"--ssl-key={key}", "--require-secure-transport=ON"]
    with mariadb_server(folder, *tls) as running:
        yield running, ca, authority.certificate


@pytest.mark.parametrize("way", ["pemPath", "pemContents", "skip-verify", "preferred"])
async def test_over_tls(secure, way):
    server, path, text = secure
    more = {"pemPath": {"pem_path": str(path)}, "pemContents": {"pem_contents": text}}.get(way, {})
    dsn = f"{server.dsn}?allowNativePasswords=true&tls={'custom' if more else way}"
    async with driver.open(Options(connection_string=dsn, **more), CONTEXT) as store:
        await store.set(SetRequest("k", b"v" * 100_000))
        assert await store.get(GetRequest("k")) is not None


@pytest.mark.parametrize("way", ["false", "true"])
async def test_a_server_that_is_not_trusted_or_wants_tls(secure, way):
    with pytest.raises(ComponentUnavailable, match=r"denied|certificate"):
        async with driver.open(Options(connection_string=f"{secure[0].dsn}?tls={way}"), CONTEXT):
            pass


async def test_pem_without_tls_is_told(server, schema, caplog, tmp_path):
    async with driver.open(options(server, schema, pem_contents="x"), CONTEXT):
        pass
    assert "tls=custom" in caplog.text


@pytest.mark.parametrize("more", [{"pem_path": "/nowhere/ca.pem"}, {"pem_contents": "no certificate"}])
async def test_certificates_that_are_none(more):
    given = Options(connection_string="u@tcp(127.0.0.1:1)/?tls=custom", **more)
    with pytest.raises(ConfigError, match="certificates"):
        async with driver.open(given, CONTEXT):
            pass


GOOD = "user:password@tcp(host)/"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"connection_string": ""}, "connectionString"),
        ({"connection_string": "user:password@tcp(host:3306)"}, "connectionString"),
        ({"connection_string": "user:password@tcp(host:3306)/orders"}, "connectionString"),
        ({"connection_string": "user:password@tcp(host:3306/"}, "connectionString"),
        ({"connection_string": "user:password@tcp(host:99999)/"}, "connectionString"),
        ({"connection_string": "user:password@udp(host:3306)/"}, "connectionString"),
        ({"connection_string": f"{GOOD}?tls=maybe"}, "connectionString"),
        ({"connection_string": f"{GOOD}?timeout=soon"}, "connectionString"),
        ({"connection_string": f"{GOOD}?a b=c"}, "connectionString"),
        ({"connection_string": f"{GOOD}?allowCleartextPasswords=true"}, "connectionString"),
        ({"connection_string": f"{GOOD}?tls=custom"}, "pemPath"),
        ({"connection_string": GOOD, "schema_name": "a-b"}, "schemaName"),
        ({"connection_string": GOOD, "table_name": "a; DROP TABLE b"}, "tableName"),
        ({"connection_string": GOOD, "metadata_table_name": ""}, "metadataTableName"),
    ],
)
def test_bad_options_are_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        Options(**arguments)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "password" not in str(caught.value).replace("user:password@tcp(host:3306)/)", "")


async def test_a_wrong_etag_is_told_in_dapr_s_words(server, schema):
    async with driver.open(options(server, schema), CONTEXT) as store:
        with pytest.raises(EtagMismatch, match="possible etag mismatch"):
            await store.set(SetRequest("k", b"v", etag="no"))
