"""What a driver author reads: one Protocol and its value types per kind of driver, and how a driver declares
itself.

May import `meshnode.errors` only.
"""

from meshnode.interfaces._deliveries import Deliveries, open_deliveries
from meshnode.interfaces._driver import Driver, DriverContext, option
from meshnode.interfaces.bindings import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    InputBinding,
    OutputBinding,
    Receive,
)
from meshnode.interfaces.nameresolution import Instance, NameResolver
from meshnode.interfaces.pubsub import (
    Deliver,
    Message,
    Outcome,
    PublishRequest,
    PubSub,
    PubSubFeature,
    SubscribeRequest,
)
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
    "BindingEvent",
    "BindingRequest",
    "BindingResult",
    "BulkGetResult",
    "Concurrency",
    "Consistency",
    "DeleteRequest",
    "Deliver",
    "Deliveries",
    "Driver",
    "DriverContext",
    "Feature",
    "GetRequest",
    "GetResult",
    "InputBinding",
    "Instance",
    "Message",
    "NameResolver",
    "Outcome",
    "OutputBinding",
    "PubSub",
    "PubSubFeature",
    "PublishRequest",
    "QueryItem",
    "QueryRequest",
    "QueryResult",
    "Receive",
    "SecretStore",
    "SetRequest",
    "SortKey",
    "StateOperation",
    "StateStore",
    "SubscribeRequest",
    "open_deliveries",
    "option",
]
