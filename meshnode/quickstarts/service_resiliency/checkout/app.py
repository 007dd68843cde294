"""Sends orders to the order processor, by turns with InvokeService and with a generated stub."""

import asyncio
import json
import os
import sys
import uuid

from dapr.clients import DaprClient
from grpclib.client import Channel
from order_stubs.orders.v1 import Order, OrdersStub, ProcessedRequest

ORDERS = int(os.environ.get("ORDERS", "20"))
PACE = float(os.environ.get("PACE", "0.25"))
NODE_PORT = int(os.environ.get("DAPR_GRPC_PORT", "50001"))
PROCESSOR = "order-processor"


def invoke(client: DaprClient, run: str, number: int) -> int:
    """The generic way: bytes in, bytes out."""
    reply = client.invoke_method(PROCESSOR, "orders", data=json.dumps({"run": run, "number": number}))
    return int(json.loads(reply.data)["number"])


async def main() -> int:
    run = uuid.uuid4().hex[:8]
    # The metadata is all that makes this an ordinary stub for a service behind the mesh.
    with DaprClient() as client:
        async with Channel("127.0.0.1", NODE_PORT) as channel:
            stub = OrdersStub(channel, metadata={"dapr-app-id": PROCESSOR})
            for number in range(1, ORDERS + 1):
                if number % 2:
                    way, answer = "InvokeService", await asyncio.to_thread(invoke, client, run, number)
                else:
                    way, answer = "stub", (await stub.submit(Order(run=run, number=number))).number
                print(f"order {number} accepted ({way})")
                if answer != number:
                    print(f"order {number} came back as {answer}")
                    return 1
                await asyncio.sleep(PACE)
            request = ProcessedRequest(run=run, orders=ORDERS)
            numbers = [receipt.number async for receipt in stub.processed(request)]
    if numbers != list(range(1, ORDERS + 1)):
        print(f"orders are missing or out of order: {numbers}")
        return 1
    print(f"all {ORDERS} orders are present, in order")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
