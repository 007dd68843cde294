"""The metadata fields of `state.mongodb`, with Dapr's names and defaults."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final
from urllib.parse import quote

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]

_COUNT = re.compile(r"[1-9][0-9]{0,5}")
_TIMEOUT = timedelta(seconds=5)


@final
@frozen
class Options:
    """Metadata of `state.mongodb`."""

    host: str = option("host", "`host:port`; several with commas for a replica set.", default="")
    server: str = option("server", "Name of a DNS SRV record, instead of `host`.", default="")
    username: str = option("username", "User name; counts together with `password`.", default="")
    password: str = option("password", "Password.", default="", secret=True)
    database_name: str = option("databaseName", "Database.", default="daprStore")
    collection_name: str = option("collectionName", "Collection.", default="daprCollection")
    write_concern: str = option(
        "writeConcern",
        "How many members must have a write in their journals: `majority` or a number.",
        default="",
    )
    read_concern: str = option(
        "readConcern",
        "How far what is read must have spread; empty: `local`.",
        default="",
        allowed=("", "available", "linearizable", "local", "majority", "snapshot"),
    )
    params: str = option(
        "params", "What follows the address in a connection string: `?authSource=admin&tls=true`.", default=""
    )
    connection_string: str = option(
        "connectionString",
        "`mongodb://…` or `mongodb+srv://…`, instead of `host`, `server`, `username`, `password`, `params`.",
        default="",
        secret=True,
    )
    operation_timeout: timedelta = option(
        "operationTimeout", "How long one operation may take.", default=_TIMEOUT
    )

    def __attrs_post_init__(self) -> None:
        problems = []
        if not self.connection_string:
            if not (self.host or self.server):
                problems.append(Problem("is missing", field="host", remedy="or server, or connectionString"))
            if self.host and self.server:
                problems.append(
                    Problem("cannot be given with host", field="server", remedy="keep one of them")
                )
        for label, name in (("databaseName", self.database_name), ("collectionName", self.collection_name)):
            if not name:
                problems.append(Problem("is empty", field=label))
        if self.write_concern not in ("", "majority") and not _COUNT.fullmatch(self.write_concern):
            problems.append(
                Problem("is no write concern", field="writeConcern", remedy="majority, or a number from 1 on")
            )
        if self.operation_timeout <= timedelta(0):
            problems.append(Problem("must be above 0", field="operationTimeout"))
        if problems:
            raise ConfigError(problems)

    @property
    def timeout(self) -> float:
        return self.operation_timeout.total_seconds()

    @property
    def uri(self) -> str:
        if self.connection_string:
            return self.connection_string
        login = ""
        if self.username and self.password:
            login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        scheme, address = ("mongodb+srv", self.server) if self.server else ("mongodb", self.host)
        return f"{scheme}://{login}{address}/{quote(self.database_name, safe='')}{self.params}"

    @property
    def place(self) -> str:
        """For messages: where the server is, without a password."""
        return self.host or self.server or self.connection_string.rpartition("@")[2].rpartition("//")[2]
