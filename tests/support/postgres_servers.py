"""Real PostgreSQL servers for tests: a cluster of their own in a temporary folder, on a free loopback port,
ended by their process id.

The programs are looked for on PATH, in `.tools/` and where Debian puts them. PostgreSQL refuses to run as
root, so as root it is started as another user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from support.redis_servers import free_port, wait_for

__all__ = ["PostgresServer", "find_postgres", "postgres_server"]

_PLACES = (
    (Path(__file__).parents[2] / ".tools", "**/bin/postgres"),
    (Path("/usr/lib/postgresql"), "*/bin/postgres"),
)


def find_postgres() -> Path | None:
    """The folder of the programs, or None when this machine has none."""
    found = shutil.which("postgres") or next(
        (str(path) for folder, pattern in _PLACES for path in sorted(folder.glob(pattern), reverse=True)),
        None,
    )
    if found is None:
        return None
    programs = Path(found).resolve().parent
    return programs if (programs / "initdb").exists() else None


class PostgresServer:
    """One cluster. `start` returns when it answers; `kill` and `start` keep what was committed.

    `tls` is a certificate and its key, in PEM; with it the server takes connections both ways.
    """

    def __init__(self, folder: Path, tls: tuple[str, str] | None = None) -> None:
        programs = find_postgres()
        assert programs is not None, "postgres is not installed"
        self.port = free_port()
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = [] if tls is None else ["-cssl=on", *self._keep(tls)]
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._password = folder / "password"
        self._password.write_text("sesame\n")
        self._password.chmod(0o644)
        arguments = ["--username=tester", "--auth=scram-sha-256", f"--pwfile={self._password}", "--no-sync"]
        subprocess.run(
            [programs / "initdb", "-D", self._data, *arguments, "--encoding=UTF8", "--locale=C"],
            user=self._user,
            cwd=folder,
            check=True,
            capture_output=True,
        )

    def _keep(self, tls: tuple[str, str]) -> Iterator[str]:
        """Writes certificate and key where the server's user alone can read them; yields their settings."""
        for name, text in zip(("ssl_cert_file", "ssl_key_file"), tls, strict=True):
            path = self._folder / f"{name}.pem"
            path.write_text(text)
            path.chmod(0o600)
            if self._user is not None:
                shutil.chown(path, self._user)
            yield f"-c{name}={path}"

    @property
    def url(self) -> str:
        return f"postgres://tester:sesame@127.0.0.1:{self.port}/postgres"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def folder(self) -> Path:
        """Its socket is there too."""
        return self._folder

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # a killed server leaves it
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres", "-D", self._data, "-p", str(self.port),
                    "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={self._folder}",
                    "-cmax_connections=30", "-cshared_buffers=16MB", "-cautovacuum=off", *self._settings,
                ],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_for(self._answers, f"postgres did not start; see {self._folder / 'log'}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"postgres did not start:\n{(self._folder / 'log').read_text()[-2000:]}")
        try:
            self.rows("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Over a connection of its own: for set-up and for looking behind the driver's back."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def wait_for_rows(self, sql: str, expected: Sequence[tuple[object, ...]]) -> None:
        wait_for(lambda: self.rows(sql) == list(expected), f"{sql} did not become {expected}")

    def signal(self, number: int) -> None:
        """To the server and all its processes."""
        for pid in (*_children(self.pid), self.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # a connection that has just ended

    def stop(self) -> None:
        """Ends at once, but writes what it has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """SIGKILL: as in an accident. Its children are told by the kernel or killed here."""
        if self._process is None:
            return
        children = _children(self._process.pid)
        self._process.kill()
        self._process.wait(20)
        self._process = None
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_for(lambda: not any(_runs(pid) for pid in children), "processes of the server stayed")


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {one.pw_name for one in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextmanager
def postgres_server(tls: tuple[str, str] | None = None) -> Iterator[PostgresServer]:
    """A running server; it and its folder are gone afterwards.

    The folder is not pytest's: those are closed to other users.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        server = PostgresServer(Path(folder), tls)
        server.start()
        try:
            yield server
        finally:
            server.kill()
