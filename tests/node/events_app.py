"""The application of the pub/sub SDK tests, written with the unmodified Python SDK: it prints every event as
a line of JSON, and answers as its topic's name says.

Takes its port. Prints `listening` once it is there.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

from cloudevents.sdk.event import v1
from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.grpc import App, BindingRequest, Rule, SubscriptionMessage

PUBSUB = "pubsub"
app = App()
asked_again: set[str] = set()


def note(handler: str, **seen: Any) -> None:
    # One write for the line and its end: handlers run in threads.
    sys.stdout.write(json.dumps({"handler": handler, **seen}) + "\n")
    sys.stdout.flush()


def seen_in(event: SubscriptionMessage) -> Mapping[str, Any]:
    return {
        "id": event.id(),
        "source": event.source(),
        "type": event.type(),
        "topic": event.topic(),
        "pubsub": event.pubsub_name(),
        "content_type": event.data_content_type(),
        "data": event.data(),
        "raw": base64.b64encode(event.raw_data()).decode(),
        "extensions": sorted(event.extensions()),
        "metadata": event.metadata(),
    }


@app.subscribe(PUBSUB, "plain")
def plain(event: SubscriptionMessage) -> None:
    note("plain", **seen_in(event))


@app.subscribe(PUBSUB, "raw", metadata={"rawPayload": "true"})
def raw(event: SubscriptionMessage) -> None:
    note("raw", **seen_in(event))


@app.subscribe(PUBSUB, "legacy")
def legacy(event: v1.Event) -> None:
    note("legacy", id=event.EventID(), data=event.Data().decode(), subject=event.Subject())


# Before the rules: the SDK forgets a default that comes after them.
@app.subscribe(PUBSUB, "routed", disable_topic_validation=True)
def the_rest(event: SubscriptionMessage) -> None:
    note("the rest", **seen_in(event))


@app.subscribe(PUBSUB, "routed", rule=Rule('event.type == "widget"', 1))
def widgets(event: SubscriptionMessage) -> None:
    note("widgets", **seen_in(event))


@app.subscribe(PUBSUB, "routed", rule=Rule("event.data.n > 5", 2))
def large(event: SubscriptionMessage) -> None:
    note("large", **seen_in(event))


@app.subscribe(PUBSUB, "retried")
def retried(event: SubscriptionMessage) -> TopicEventResponse:
    note("retried", **seen_in(event))
    if event.id() in asked_again:
        return TopicEventResponse("success")
    asked_again.add(event.id())
    return TopicEventResponse("retry")


@app.subscribe(PUBSUB, "dropped", dead_letter_topic="dead")
def dropped(event: SubscriptionMessage) -> TopicEventResponse:
    note("dropped", **seen_in(event))
    return TopicEventResponse("drop")


@app.subscribe(PUBSUB, "failing", dead_letter_topic="dead")
def failing(event: SubscriptionMessage) -> None:
    note("failing", **seen_in(event))
    raise ValueError("the application cannot")


@app.subscribe(PUBSUB, "dead")
def dead(event: SubscriptionMessage) -> None:
    note("dead", **seen_in(event))


@app.subscribe(PUBSUB, "bulk")
def bulk(event: SubscriptionMessage) -> TopicEventResponse | None:
    note("bulk", **seen_in(event))
    if event.data() == {"n": 1} and event.id() not in asked_again:
        asked_again.add(event.id())
        return TopicEventResponse("retry")
    return None


@app.binding("tick")
def tick(request: BindingRequest) -> None:
    note("tick", data=request.text(), metadata=sorted(request.metadata))


if __name__ == "__main__":
    print("listening", flush=True)
    app.run(int(sys.argv[1]), "127.0.0.1")
