"""What a driver author reads: one Protocol and its value types per kind of driver, and how a driver declares
itself.

May import `meshnode.errors` only.
"""

from meshnode.interfaces._driver import Driver, DriverContext, option
from meshnode.interfaces.nameresolution import Instance, NameResolver
from meshnode.interfaces.secretstores import SecretStore
from meshnode.interfaces.state import (
    BulkGetResult,
    Concurrency,
    Consistency,
    DeleteRequest,
    Feature,
    GetRequest,
    GetResult,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetRequest,
    SortKey,
    StateOperation,
    StateStore,
)

__all__ = [
    "BulkGetResult",
    "Concurrency",
    "Consistency",
    "DeleteRequest",
    "Driver",
    "DriverContext",
    "Feature",
    "GetRequest",
    "GetResult",
    "Instance",
    "NameResolver",
    "QueryItem",
    "QueryRequest",
    "QueryResult",
    "SecretStore",
    "SetRequest",
    "SortKey",
    "StateOperation",
    "StateStore",
    "option",
]
