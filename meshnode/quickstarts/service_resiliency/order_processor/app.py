"""Takes orders by Dapr's invocation and as a gRPC service, and keeps them in its node's store."""

import json
import os
from collections.abc import Iterator
from functools import cache

import grpc
from dapr.clients import DaprClient
from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse
from order_stubs.orders.v1 import Order, ProcessedRequest, Receipt

STORE = os.environ.get("STORE", "statestore")
PORT = int(os.environ.get("APP_PORT", "50061"))
HOUR = {"ttlInSeconds": "3600"}

app = App()


@cache
def node() -> DaprClient:
    """Opened at the first order, so that this process may be up before its node is."""
    return DaprClient()


def keep(run: str, number: int, way: str) -> Receipt:
    """An order that comes twice, because its answer was lost, is still one order."""
    node().save_state(
        STORE, f"{run}-{number}", json.dumps({"number": number, "way": way}), state_metadata=HOUR
    )
    print(f"processed order {number} ({way})")
    return Receipt(number=number, way=way)


@app.method("orders")
def on_invoke(request: InvokeMethodRequest) -> InvokeMethodResponse:
    order = json.loads(request.text())
    receipt = keep(order["run"], order["number"], "invoke")
    return InvokeMethodResponse(json.dumps({"number": receipt.number}), "application/json")


def submit(order: Order, context: grpc.ServicerContext) -> Receipt:
    return keep(order.run, order.number, "stub")


def processed(request: ProcessedRequest, context: grpc.ServicerContext) -> Iterator[Receipt]:
    for number in range(1, request.orders + 1):
        stored = node().get_state(STORE, f"{request.run}-{number}").data
        if stored:
            yield Receipt(**json.loads(stored))


def add_orders(_: object, server: grpc.Server) -> None:
    """Register the service by hand: its messages are not protoc's, so there is no generated function."""
    handlers = {
        "Submit": grpc.unary_unary_rpc_method_handler(submit, Order.parse, bytes),
        "Processed": grpc.unary_stream_rpc_method_handler(processed, ProcessedRequest.parse, bytes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("orders.v1.Orders", handlers),))


if __name__ == "__main__":
    app.add_external_service(add_orders, None)
    print(f"order processor on port {PORT}")
    app.run(PORT, "127.0.0.1")
