"""Processes orders as they come, and publishes a receipt for each."""

import json
import os
from functools import cache

from dapr.clients import DaprClient
from dapr.ext.grpc import App, SubscriptionMessage

PUBSUB = os.environ.get("PUBSUB", "orderpubsub")
PORT = int(os.environ.get("APP_PORT", "50061"))

app = App()
processed: set[str] = set()


@cache
def node() -> DaprClient:
    """Opened at the first order, so that this process may be up before its node is."""
    return DaprClient()


@app.subscribe(PUBSUB, "orders")
def on_order(event: SubscriptionMessage) -> None:
    """An order that comes twice is still one order. An exception here would bring it once more."""
    order = event.data()
    if event.id() in processed:
        print(f"order {order['number']} came again")
    else:
        print(f"processed order {order['number']}")
    node().publish_event(PUBSUB, "receipts", json.dumps(order), data_content_type="application/json")
    processed.add(event.id())


if __name__ == "__main__":
    print(f"order processor on port {PORT}")
    app.run(PORT, "127.0.0.1")
