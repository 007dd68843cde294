"""Real MariaDB servers for tests: on free loopback ports, each in a folder of its own, ended by their process
id. What was committed is there again after `kill` and `start`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
from support.install_mariadb import find_mariadb, libraries
from support.redis_servers import free_port, wait_for

__all__ = ["MariadbServer", "find_mariadb", "mariadb_server"]

_USERS = """
FLUSH PRIVILEGES;
CREATE USER tester@'%' IDENTIFIED BY 'sesame';
GRANT ALL ON *.* TO tester@'%' WITH GRANT OPTION;
"""
_SMALL = ("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--performance-schema=OFF")


class MariadbServer:
    """One server. `start` returns when it answers."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        programs = find_mariadb()
        assert programs is not None, "MariaDB is not installed"
        self.port = free_port()
        self.folder = folder / f"mariadb-{self.port}"
        self.socket = f"/tmp/meshnode-mariadb-{self.port}.sock"  # short: the kernel allows 107 characters
        self._data = self.folder / "data"
        (self._data / "mysql").mkdir(parents=True)
        share = programs / "share" / "mysql"
        self._command = [
            str(programs / "sbin" / "mariadbd"), "--no-defaults", f"--basedir={programs}",
            f"--lc-messages-dir={share}", f"--datadir={self._data}", "--user=root", *_SMALL,
        ]  # fmt: skip
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, "LD_LIBRARY_PATH": libraries()}
        tables = [(share / f"mysql_system_tables{part}.sql").read_text() for part in ("", "_data")]
        subprocess.run(
            [*self._command, "--bootstrap"],
            input="\n".join(["USE mysql;", *tables, _USERS]).encode(),
            env=self._environment,
            check=True,
            capture_output=True,
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        return f"tester:sesame@tcp({self.address})/"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        listening = ["--bind-address=127.0.0.1", f"--port={self.port}", f"--socket={self.socket}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *listening, *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, f"MariaDB did not start; see {self.folder / 'log'}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"MariaDB did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
        try:
            self.rows("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(self, **arguments: Any) -> Any:
        """A connection of one's own: for set-up, and for looking behind the driver's back."""
        given = {"user": "tester", "password": "sesame", "autocommit": True}
        return pymysql.connect(host="127.0.0.1", port=self.port, **{**given, **arguments})

    def rows(self, sql: str, *arguments: Any, schema: str | None = None) -> list[tuple[Any, ...]]:
        with closing(self.connect(database=schema)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return list(cursor.fetchall())

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """As an operator does it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None


@contextmanager
def mariadb_server(folder: Path, *arguments: str) -> Iterator[MariadbServer]:
    """A running server, gone afterwards."""
    server = MariadbServer(folder, arguments)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        Path(server.socket).unlink(missing_ok=True)
