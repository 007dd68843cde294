"""Every time the schedule fires, writes a batch of orders through an output binding."""

import itertools
import json
import os
import sys
import threading

from dapr.clients import DaprClient
from dapr.ext.grpc import App, BindingRequest

PORT = int(os.environ.get("APP_PORT", "50062"))
BATCHES = int(os.environ.get("BATCHES", "3"))
SQL = os.environ.get("OUTPUT") == "postgresql"

app = App()
numbers = itertools.count(1)
enough = threading.Event()


@app.binding("cron")
def on_tick(request: BindingRequest) -> None:
    number = next(numbers)
    if number > BATCHES:
        return
    orders = [{"batch": number, "order": order, "total": 10.5 * order} for order in (1, 2, 3)]
    with DaprClient() as client:
        if SQL:
            to_database(client, orders)
        else:
            to_file(client, number, orders)
    print(f"batch {number} written: {len(orders)} orders")
    if number == BATCHES:
        enough.set()


def to_file(client: DaprClient, number: int, orders: list[dict[str, float]]) -> None:
    client.invoke_binding("orderfiles", "create", json.dumps(orders), {"fileName": f"batch-{number}.json"})


def from_file(client: DaprClient, number: int) -> list[dict[str, float]]:
    return json.loads(
        client.invoke_binding("orderfiles", "get", "", {"fileName": f"batch-{number}.json"}).data
    )


def to_database(client: DaprClient, orders: list[dict[str, float]]) -> None:
    for order in orders:
        metadata = {
            "sql": "INSERT INTO orders (batch, number, total) VALUES ($1, $2, $3)",
            "params": json.dumps([order["batch"], order["order"], order["total"]]),
        }
        client.invoke_binding("orderdb", "exec", "", metadata)


def main() -> int:
    threading.Thread(target=app.run, args=(PORT, "127.0.0.1"), daemon=True).start()
    enough.wait()
    if not SQL:
        with DaprClient() as client:
            batches = [from_file(client, number) for number in range(1, BATCHES + 1)]
        if [batch[0]["batch"] for batch in batches] != list(range(1, BATCHES + 1)):
            print(f"batches are missing or wrong: {batches}")
            return 1
    print(f"all {BATCHES} batches are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
