"""The metadata fields of `state.mysql`, with Dapr's names and defaults."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_state_mysql._dsn import parse_dsn

__all__ = ["Options"]

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_TIMEOUT = 20


@final
@frozen
class Options:
    """Metadata of `state.mysql`."""

    connection_string: str = option(
        "connectionString",
        "`user:password@tcp(host:3306)/?tls=custom`, in the form of Go's driver, without a database's name.",
        secret=True,
    )
    schema_name: str = option("schemaName", "Database; made if it is not there.", default="dapr_state_store")
    table_name: str = option(
        "tableName", "Table that holds the values; made if it is not there.", default="state"
    )
    metadata_table_name: str = option(
        "metadataTableName",
        "Table that says when expired rows were last removed; made if it is not there.",
        default="dapr_metadata",
    )
    timeout_in_seconds: int = option(
        "timeoutInSeconds", "Seconds that one operation may take; 0 or less: 20.", default=_TIMEOUT
    )
    pem_path: str = option(
        "pemPath",
        "File with the certificates (PEM) that vouch for the server's; needs `tls=custom` in "
        "`connectionString`.",
        default="",
    )
    pem_contents: str = option(
        "pemContents", "The same as text; without effect when there is a `pemPath`.", default=""
    )
    cleanup_interval: timedelta = option(
        "cleanupInterval",
        "How often expired rows are removed; 0 or less: never. (They are not returned in any case.)",
        default=timedelta(hours=1),
        aliases=("cleanupIntervalInSeconds",),
    )

    def __attrs_post_init__(self) -> None:
        problems = [
            Problem(
                f"{name!r} is no name for a table or database", field=label, remedy="letters, digits and _"
            )
            for label, name in (
                ("schemaName", self.schema_name),
                ("tableName", self.table_name),
                ("metadataTableName", self.metadata_table_name),
            )
            if not _NAME.fullmatch(name)
        ]
        if problems:
            raise ConfigError(problems)
        dsn = parse_dsn(self.connection_string)
        if dsn.tls == "custom" and not (self.pem_path or self.pem_contents):
            message = "is needed for tls=custom in connectionString"
            raise ConfigError([Problem(message, field="pemPath", remedy="or pemContents, or tls=true")])

    @property
    def timeout(self) -> float:
        return float(self.timeout_in_seconds if self.timeout_in_seconds > 0 else _TIMEOUT)

    @property
    def sweep_seconds(self) -> float | None:
        """None: never."""
        seconds = self.cleanup_interval.total_seconds()
        return seconds if seconds > 0 else None
