"""What a driver author reads: one Protocol and its value types per kind of driver, and how a driver declares
itself.

May import `meshnode.errors` only.
"""

from meshnode.interfaces._deliveries import Deliveries, open_deliveries
from meshnode.interfaces._driver import Driver, DriverContext, free_form, option
from meshnode.interfaces._errors import lone_error, reason_of
from meshnode.interfaces._quoted import unquoted
from meshnode.interfaces.bindings import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    InputBinding,
    OutputBinding,
    Receive,
)
from meshnode.interfaces.configuration import ConfigurationItem, ConfigurationStore, Notify
from meshnode.interfaces.conversation import (
    ChatMessage,
    ChatRole,
    Conversation,
    ConverseChoice,
    ConverseOutput,
    ConverseRequest,
    ConverseUsage,
    Tool,
    ToolCall,
)
from meshnode.interfaces.crypto import (
    CipherRequest,
    CipherResult,
    CryptoProvider,
    PublicKey,
    SignatureRequest,
)
from meshnode.interfaces.lock import LockStore, UnlockOutcome
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
from meshnode.interfaces.secretstores import SecretFeature, SecretStore
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
    "ChatMessage",
    "ChatRole",
    "CipherRequest",
    "CipherResult",
    "Concurrency",
    "ConfigurationItem",
    "ConfigurationStore",
    "Consistency",
    "Conversation",
    "ConverseChoice",
    "ConverseOutput",
    "ConverseRequest",
    "ConverseUsage",
    "CryptoProvider",
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
    "LockStore",
    "Message",
    "NameResolver",
    "Notify",
    "Outcome",
    "OutputBinding",
    "PubSub",
    "PubSubFeature",
    "PublicKey",
    "PublishRequest",
    "QueryItem",
    "QueryRequest",
    "QueryResult",
    "Receive",
    "SecretFeature",
    "SecretStore",
    "SetRequest",
    "SignatureRequest",
    "SortKey",
    "StateOperation",
    "StateStore",
    "SubscribeRequest",
    "Tool",
    "ToolCall",
    "UnlockOutcome",
    "free_form",
    "lone_error",
    "open_deliveries",
    "option",
    "reason_of",
    "unquoted",
]
