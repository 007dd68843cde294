"""nameresolution.sqlite: the conformance suite, then Dapr's layout and rules, looked at from outside the
driver.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from meshnode_nameresolution_sqlite import RegistrationLost, SqliteOptions, SqliteResolver, driver
from trio.testing import MockClock

from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, Instance
from meshnode.testing.conformance import nameresolution

START = 1_790_000_000


class Records(logging.Handler):
    """A log to wait for: refreshes happen in threads, which a virtual clock knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self._send, self.receive = trio.open_memory_channel[str](1000)

    def emit(self, record: logging.LogRecord) -> None:
        self._send.send_nowait(record.getMessage())

    async def wait_for(self, text: str) -> None:
        async for message in self.receive:
            if text in message:
                return


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "names.db"


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    log = logging.getLogger(request.node.name)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    yield log
    log.handlers.clear()


def opened(
    path: Path | str, log: logging.Logger | None = None, seed: int = 0, **options: Any
) -> AbstractAsyncContextManager[SqliteResolver]:
    """The driver; its wall clock is trio's clock, so a virtual run has virtual seconds in the rows too."""
    context = DriverContext(
        component="nr",
        app_id="checkout",
        log=log or logging.getLogger("test"),
        wall=lambda: START + trio.current_time(),
        rng=random.Random(seed),
    )
    return driver.open(SqliteOptions(connection_string=str(path), **options), context)


def rows(path: Path, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(query, arguments).fetchall()


def hosts(path: Path) -> list[tuple[Any, ...]]:
    return rows(path, "SELECT address, app_id, namespace, last_update FROM hosts ORDER BY address")


ME = Instance("checkout", "127.0.0.1:50002")


@pytest.mark.parametrize("check", nameresolution.CHECKS, ids=str)
@pytest.mark.parametrize("place", ["file", "uri", "rollback-journal"])
async def test_conformance(check: nameresolution.ResolverCheck, place: str, path: Path) -> None:
    target = f"file:{path}?cache=private" if place == "uri" else path
    numbers = iter(range(100))
    await check.run(lambda: opened(target, seed=next(numbers), disable_wal=place == "rollback-journal"))


# ---- the layout ----


async def test_the_layout_is_the_one_daprd_makes(path: Path, mock_clock: MockClock) -> None:
    async with opened(path) as resolver, resolver.announce(ME):
        assert hosts(path) == [("127.0.0.1:50002", "checkout", "default", START)]
        columns = rows(path, "SELECT name, type, \"notnull\", pk FROM pragma_table_info('hosts')")
        assert columns == [
            ("registration_id", "TEXT", 1, 1),
            ("address", "TEXT", 1, 0),
            ("app_id", "TEXT", 1, 0),
            ("namespace", "TEXT", 1, 0),
            ("last_update", "INTEGER", 1, 0),
        ]
        indexes = rows(
            path, "SELECT name, \"unique\" FROM pragma_index_list('hosts') WHERE origin = 'c' ORDER BY name"
        )
        assert indexes == [("hosts_address_idx", 1), ("hosts_last_update_idx", 0)]
        assert rows(path, "SELECT key, value FROM metadata") == [("nr-migrations", "1")]
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert hosts(path) == []


async def test_tables_can_have_other_names(path: Path) -> None:
    async with (
        opened(path, table_name="mesh_hosts", metadata_table_name="mesh_meta") as resolver,
        resolver.announce(ME),
    ):
        assert rows(path, "SELECT app_id FROM mesh_hosts") == [("checkout",)]
        assert rows(path, "SELECT key FROM mesh_meta") == [("nr-migrations",)]


async def test_a_file_made_by_daprd_is_used_as_it_is(path: Path, mock_clock: MockClock) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as daprd:
        daprd.executescript(f"""
            CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
            INSERT INTO metadata VALUES ('nr-migrations', '1');
            CREATE TABLE hosts (registration_id TEXT NOT NULL PRIMARY KEY, address TEXT NOT NULL,
                app_id TEXT NOT NULL, namespace TEXT NOT NULL, last_update INTEGER NOT NULL);
            CREATE UNIQUE INDEX hosts_address_idx ON hosts (address);
            CREATE INDEX hosts_last_update_idx ON hosts (last_update);
            INSERT INTO hosts VALUES ('r1', '10.0.0.1:50002', 'orders', '', {START}),
                                     ('r2', '10.0.0.2:50002', 'orders', 'production', {START});
        """)
    async with opened(path) as resolver:
        # daprd says no namespace; its row is found from any. A row that names another is not.
        assert await resolver.resolve("orders", "default") == ("10.0.0.1:50002",)
        assert await resolver.resolve("orders", "production") == ("10.0.0.1:50002", "10.0.0.2:50002")


async def test_nodes_that_start_together_on_a_new_file_all_get_there(path: Path) -> None:
    program = (
        "import sys, trio, random\n"
        "from meshnode.interfaces import DriverContext\n"
        "from meshnode_nameresolution_sqlite import driver, SqliteOptions\n"
        "async def main():\n"
        "    context = DriverContext('nr', 'a', rng=random.Random(int(sys.argv[2])))\n"
        "    async with driver.open(SqliteOptions(connection_string=sys.argv[1]), context) as resolver:\n"
        "        await resolver.resolve('a', 'default')\n"
        "trio.run(main)\n"
    )
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(trio.run_process, [sys.executable, "-c", program, str(path), str(number)])
    assert rows(path, "SELECT * FROM metadata") == [("nr-migrations", "1")]


# ---- who is alive ----


async def test_a_row_dies_when_it_is_not_refreshed(path: Path, mock_clock: MockClock) -> None:
    async with opened(path) as resolver:
        insert = "INSERT INTO hosts VALUES ('r1', '10.0.0.1:50002', 'orders', '', ?)"
        rows(path, insert, START)
        assert await resolver.resolve("orders", "default") == ("10.0.0.1:50002",)
        mock_clock.jump(4.9)
        assert await resolver.resolve("orders", "default") == ("10.0.0.1:50002",)
        mock_clock.jump(0.1)
        assert await resolver.resolve("orders", "default") == ()


async def test_the_own_row_is_refreshed_before_it_dies(
    path: Path, log: logging.Logger, mock_clock: MockClock
) -> None:
    log.addHandler(records := Records())
    async with opened(path, log) as resolver, resolver.announce(ME):
        for round_number in range(1, 5):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3.0)
            await records.wait_for("refreshed")
            assert hosts(path)[0][3] == START + 3 * round_number
            assert await resolver.resolve("checkout", "default") == ("127.0.0.1:50002",)


async def test_answers_may_be_kept_for_less_than_a_row_lives(path: Path) -> None:
    async with opened(path) as resolver:
        assert 0 < resolver.max_age < 5
    async with opened(path, update_interval=timedelta(seconds=60)) as resolver:
        assert resolver.max_age == 30


async def test_a_node_takes_over_the_address_of_one_that_died(path: Path) -> None:
    async with opened(path, seed=1) as old, opened(path, seed=2) as new:
        async with old.announce(Instance("orders", ME.address)):
            pass
        rows(path, "INSERT INTO hosts VALUES ('dead', ?, 'orders', '', ?)", ME.address, START)
        async with new.announce(ME):
            assert [row[:2] for row in hosts(path)] == [(ME.address, "checkout")]


# ---- trouble ----


async def test_a_node_whose_address_another_registers_ends(
    path: Path, log: logging.Logger, mock_clock: MockClock
) -> None:
    log.addHandler(records := Records())

    async def serve(resolver: SqliteResolver) -> None:
        async with resolver.announce(ME):
            rows(path, "REPLACE INTO hosts VALUES ('thief', ?, 'orders', '', ?)", ME.address, START)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3.0)
            await trio.sleep_forever()

    async with opened(path, log) as resolver:
        with pytest.raises(RegistrationLost, match=r"another process registered 127\.0\.0\.1:50002"):
            await serve(resolver)
        await records.wait_for("registration lost")
    assert [row[1] for row in hosts(path)] == ["orders"], "the other's row is left alone"


async def test_a_row_that_someone_cleaned_away_comes_back(
    path: Path, log: logging.Logger, mock_clock: MockClock
) -> None:
    log.addHandler(records := Records())
    async with opened(path, log) as resolver, resolver.announce(ME):
        rows(path, "DELETE FROM hosts")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3.0)
        await records.wait_for("has been made again")
        assert await resolver.resolve("checkout", "default") == (ME.address,)


async def test_a_refresh_that_fails_is_logged_and_tried_again_soon(
    path: Path, log: logging.Logger, mock_clock: MockClock
) -> None:
    log.addHandler(records := Records())
    quick = timedelta(milliseconds=10)
    async with opened(path, log, busy_timeout=quick) as resolver, resolver.announce(ME):
        with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3.0)
            await records.wait_for("Failed to update host registration: database error: database is locked")
            assert await resolver.resolve("checkout", "default") == (ME.address,), (
                "readers do not wait for writers"
            )
            blocker.execute("ROLLBACK")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.5)
        await records.wait_for("refreshed")
        assert hosts(path)[0][3] == START + 3


async def test_dead_rows_are_cleaned_by_whoever_comes_first(
    path: Path, log: logging.Logger, mock_clock: MockClock
) -> None:
    log.addHandler(records := Records())
    hour = timedelta(hours=1)
    async with opened(path, log, cleanup_interval=hour) as resolver:
        rows(path, "INSERT INTO hosts VALUES ('r1', '10.0.0.1:1', 'dead', '', ?)", START)
        rows(path, "INSERT INTO hosts VALUES ('r2', '10.0.0.2:1', 'alive', '', ?)", START + 3600)
        rows(path, "INSERT INTO hosts VALUES ('r3', '10.0.0.3:1', 'asleep', '', ?)", START + 3590)
        async with resolver.announce(ME):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3600)
            await records.wait_for("Removed 1 expired rows")
    assert {row[1] for row in hosts(path)} == {"alive", "asleep"}
    (when,) = rows(path, "SELECT value FROM metadata WHERE key = 'nr-last-cleanup'")
    assert when == ("2026-09-21 15:13:20",)
    assert rows(path, "SELECT unixepoch(?)", *when) == [(START + 3600,)]


async def test_nobody_cleans_twice_in_an_interval(
    path: Path, log: logging.Logger, mock_clock: MockClock
) -> None:
    from meshnode_nameresolution_sqlite._database import Database, Row

    own = Row("r", ME.address, ME.app_id, ME.namespace)
    database = Database(SqliteOptions(connection_string=str(path)))
    with closing(database):
        assert database.clean_up(own, START, 3600, START - 60) == 0
        assert database.clean_up(own, START + 3599, 3600, START) is None
        assert database.clean_up(own, START + 3600, 3600, START) == 0


async def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ComponentUnavailable, match=r"failed to open SQLite file .*names\.db"):
        async with opened(tmp_path / "file" / "names.db"):
            pass


async def test_a_file_that_is_no_database_is_reported(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely" * 100)  # noqa: ASYNC240 - a few bytes, and nothing else runs
    with pytest.raises(ComponentUnavailable, match="file is not a database"):
        async with opened(path):
            pass


async def test_a_lookup_that_fails_says_so(path: Path) -> None:
    async with opened(path) as resolver:
        rows(path, "DROP TABLE hosts")
        with pytest.raises(ComponentUnavailable, match="failed to look up address: no such table: hosts"):
            await resolver.resolve("orders", "default")


async def test_a_migration_level_that_is_no_number_is_reported(path: Path) -> None:
    async with opened(path):
        rows(path, "UPDATE metadata SET value = 'x'")
    with pytest.raises(ComponentUnavailable, match="invalid migration level"):
        async with opened(path):
            pass


async def test_in_memory(mock_clock: MockClock) -> None:
    async with opened(":memory:") as resolver, resolver.announce(ME):
        assert await resolver.resolve("checkout", "default") == (ME.address,)


# ---- options ----


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"connection_string": " "}, "connectionString: missing connection string"),
        (
            {"table_name": "hosts; DROP TABLE hosts"},
            "tableName: 'hosts; DROP TABLE hosts' cannot be a table's name",
        ),
        ({"metadata_table_name": "größe"}, "metadataTableName"),
        ({"update_interval": timedelta(seconds=5.5)}, "updateInterval: must be whole seconds"),
        (
            {"update_interval": timedelta(seconds=1)},
            "updateInterval: must be at least 1s longer than timeout (at least 2s)",
        ),
        ({"timeout": timedelta(seconds=0.5)}, "timeout: must be at least 1s"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SqliteOptions(**{"connection_string": "names.db", **options})
    assert complaint in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        SqliteOptions(connection_string="", table_name="", timeout=timedelta(0))
    assert len(caught.value.problems) == 3


def test_the_entry_point_names_the_driver() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="meshnode.nameresolution", name="nameresolution.sqlite")
    assert found.load() is driver
    assert driver.type == "nameresolution.sqlite"
