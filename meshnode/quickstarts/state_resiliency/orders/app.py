"""Saves orders one after the other, reads each one back, and checks at the end that all are there."""

import json
import os
import sys
import time

from dapr.clients import DaprClient

STORE = os.environ.get("STORE", "statestore")
ORDERS = int(os.environ.get("ORDERS", "20"))
PACE = float(os.environ.get("PACE", "0.5"))


def main() -> int:
    with DaprClient() as client:
        for number in range(1, ORDERS + 1):
            client.save_state(STORE, f"order-{number}", json.dumps({"number": number}))
            print(f"saved order {number}")
            found = client.get_state(STORE, f"order-{number}").data
            print(f"read order {json.loads(found)['number']}" if found else f"order {number} is lost")
            time.sleep(PACE)
        stored = [client.get_state(STORE, f"order-{number}").data for number in range(1, ORDERS + 1)]
        numbers = [json.loads(data)["number"] for data in stored if data]
        for number in range(1, ORDERS + 1):
            client.delete_state(STORE, f"order-{number}")
    if numbers != list(range(1, ORDERS + 1)):
        print(f"orders are missing or out of order: {numbers}")
        return 1
    print(f"all {ORDERS} orders are present, in order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
