"""Publishes orders, and hears by a stream of its own which of them have been processed."""

import json
import os
import queue
import sys
import time
import uuid

from dapr.clients import DaprClient
from dapr.clients.grpc._response import TopicEventResponse
from dapr.common.pubsub.subscription import SubscriptionMessage

PUBSUB = os.environ.get("PUBSUB", "orderpubsub")
ORDERS = int(os.environ.get("ORDERS", "20"))
PACE = float(os.environ.get("PACE", "0.25"))
PATIENCE = 120


def missing_after(receipts: queue.Queue[int]) -> set[int]:
    """The orders of which nothing is heard for a long while; at best none."""
    missing = set(range(1, ORDERS + 1))
    while missing:
        try:
            missing.discard(receipts.get(timeout=PATIENCE))
        except queue.Empty:
            break
    return missing


def main() -> int:
    run = uuid.uuid4().hex[:8]
    receipts: queue.Queue[int] = queue.Queue()

    def on_receipt(message: SubscriptionMessage) -> TopicEventResponse:
        receipt = message.data()
        if receipt["run"] == run:  # not one that an earlier run has left behind
            receipts.put(receipt["number"])
        return TopicEventResponse("success")

    with DaprClient() as client:
        close = client.subscribe_with_handler(PUBSUB, "receipts", on_receipt)
        for number in range(1, ORDERS + 1):
            order = json.dumps({"run": run, "number": number})
            client.publish_event(PUBSUB, "orders", order, data_content_type="application/json")
            print(f"order {number} published")
            time.sleep(PACE)
        missing = missing_after(receipts)
        close()
    if missing:
        print(f"orders without a receipt: {sorted(missing)}")
        return 1
    print(f"all {ORDERS} orders have been processed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
