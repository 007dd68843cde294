"""SQLite behind trio, for the drivers that keep their data in a file.

Imports meshnode.errors only.

    _location.py   what a connection string means
    _database.py   opening a connection, and what SQLite's errors mean
    _worker.py     one connection, its thread, and the jobs waiting for it
"""

from meshnode_sqlite_client._database import Database, connect, whole
from meshnode_sqlite_client._location import Location, locate
from meshnode_sqlite_client._worker import Worker, open_workers

__all__ = ["Database", "Location", "Worker", "connect", "locate", "open_workers", "whole"]
