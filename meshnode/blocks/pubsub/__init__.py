"""The pub/sub block: publishing, and three kinds of subscriptions.

From the bottom: `contenttypes`, `jsontext`, `envelope`, `scopes` (pure); `brokers` (the components), `events`
and `routes` (a message as an event, and where it goes); `publishing`; `subscription` (the values), `delivery`
(one message's way to the application), its two receivers `callback` and `streaming`, `batches` (bulk),
`keeping` (a subscription that outlives its broker's absences); `subscriptions` (all of a node's).
"""

from meshnode.blocks.pubsub.brokers import Broker, Brokers, build_brokers
from meshnode.blocks.pubsub.publishing import Publishing
from meshnode.blocks.pubsub.subscription import Kind, TopicSubscription
from meshnode.blocks.pubsub.subscriptions import Subscriptions

__all__ = [
    "Broker",
    "Brokers",
    "Kind",
    "Publishing",
    "Subscriptions",
    "TopicSubscription",
    "build_brokers",
]
