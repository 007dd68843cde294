"""The transactional outbox: a message is published if and only if its state transaction committed.

`writer` works inside the transaction's request, `relay` behind it; `marks` is what they agree on, `outboxes`
has those of all stores. The
protocol is Dapr's, so that meshnodes and daprds may serve one application id:

1. For each upsert the writer publishes an internal message, named after a fresh marker key, to the outbox's
   internal topic; then it commits the transaction with the marker in it.
2. The relay takes internal messages. Where the marker exists the transaction committed: the event is
   published and the marker is done with. Where it does not after some seconds, the transaction either failed
   or has not ended.

What Dapr leaves open: a marker is written only where none is, and before a relay discards a message it writes
a tombstone in the marker's place. So a transaction that is later than the relay's patience cannot commit
behind its back, and none that committed is ever discarded.
"""

from meshnode.blocks.outbox.outboxes import Outboxes
from meshnode.blocks.outbox.settings import OutboxSettings, outbox_settings

__all__ = ["OutboxSettings", "Outboxes", "outbox_settings"]
