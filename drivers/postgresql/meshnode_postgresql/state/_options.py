"""The metadata fields of `state.postgresql`, versions 1 and 2, with Dapr's names and defaults."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_postgresql._options import ConnectionOptions
from meshnode_postgresql._text import bad_name

__all__ = ["Options", "OptionsV2", "StateOptions"]

_LEAST = timedelta(seconds=1)


@frozen
class StateOptions(ConnectionOptions):
    """What both versions have."""

    metadata_table_name: str = option(
        "metadataTableName",
        "Table that holds the schema's version, with a schema before it or without.",
        default="dapr_metadata",
    )
    cleanup_interval: timedelta = option(
        "cleanupInterval",
        "How often expired rows are removed; 0 or less: never. (They are not returned in any case.)",
        default=timedelta(hours=1),
        aliases=("cleanupIntervalInSeconds",),
    )

    @property
    def sweeps(self) -> bool:
        return self.cleanup_interval > timedelta(0)

    def problems(self) -> list[Problem]:
        found = [*super().problems(), *bad_name(self.metadata_table_name, "metadataTableName")]
        if timedelta(0) < self.timeout < _LEAST:
            found.append(Problem("must be at least 1s", field="timeout"))
        return found


@final
@frozen
class Options(StateOptions):
    """Metadata of `state.postgresql`, version 1."""

    table_name: str = option(
        "tableName", "Table that holds the values, with a schema before it or without.", default="state"
    )

    def problems(self) -> list[Problem]:
        return [*super().problems(), *bad_name(self.table_name, "tableName")]


@final
@frozen
class OptionsV2(StateOptions):
    """Metadata of `state.postgresql`, version 2."""

    table_prefix: str = option(
        "tablePrefix",
        "What stands before `state` in the table's name: `my_`, or a schema with its dot.",
        default="",
    )

    def problems(self) -> list[Problem]:
        found = super().problems()
        if not re.fullmatch(r"[\w$.]*", self.table_prefix) or bad_name(f"{self.table_prefix}state", ""):
            remedy = "letters, digits and _, such as my_ or public."
            message = f"{self.table_prefix!r} is no beginning of a table name"
            found.append(Problem(message, field="tablePrefix", remedy=remedy))
        return found
