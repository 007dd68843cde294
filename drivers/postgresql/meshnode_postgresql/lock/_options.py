"""The metadata fields of `lock.postgresql`, named as those of Dapr's components on PostgreSQL."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_postgresql._options import ConnectionOptions
from meshnode_postgresql._text import bad_name

__all__ = ["Options"]

_LONGEST = 50
"""Other names are made of it, and PostgreSQL cuts them off at 63."""


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `lock.postgresql`."""

    table_name: str = option(
        "tableName", "Table that holds the locks, with a schema before it or without.", default="locks"
    )

    def problems(self) -> list[Problem]:
        found = [*super().problems(), *bad_name(self.table_name, "tableName")]
        if len(self.table_name.rpartition(".")[2]) > _LONGEST:
            found.append(Problem(f"has more than {_LONGEST} characters", field="tableName"))
        return found
