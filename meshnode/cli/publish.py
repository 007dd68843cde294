"""`meshnode publish`: an event into a topic, through a running node."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click
from attrs import evolve

from meshnode.cli._client import Target, ask, complete_app_ids, target_options, token_metadata
from meshnode.cli._errors import UsageProblem
from meshnode.cli._payload import read_payload
from meshnode.cli._pubsub import chosen, metadata_of, metadata_option, pubsub_option
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_OF_AN_EVENT = frozenset({"id", "source", "type", "specversion"})


@click.command("publish", cls=Verb)
@click.argument("topic_argument", metavar="[TOPIC]", required=False)
@pubsub_option
@click.option("-t", "--topic", help="The topic, in Dapr's way of saying it.")
@click.option("-d", "--data", help="What to publish, as text.")
@click.option("-f", "--data-file", metavar="FILE", help="A file with what to publish; - is standard input.")
@click.option(
    "--content-type",
    help="What the data is. By default what it looks like: a CloudEvent, JSON, text or bytes.",
)
@metadata_option
@click.option(
    "--publish-app-id",
    default="",
    shell_complete=complete_app_ids,
    metavar="APP_ID",
    help="Dapr's name for --app-id.",
)
@target_options
def command(
    target: Target,
    topic_argument: str | None,
    pubsub: str,
    topic: str | None,
    data: str | None,
    data_file: str | None,
    content_type: str | None,
    metadata: tuple[str, ...],
    publish_app_id: str,
) -> None:
    """Publish an event to TOPIC as the application whose node is asked.

    `--metadata ttlInSeconds=60`, `rawPayload=true`, `partitionKey=…` and `cloudevent.type=…` are understood
    by every component, or by the node itself.
    """
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    payload = read_payload(data, data_file, "data")
    request = runtime.PublishEventRequest(
        topic=_only_topic(topic_argument, topic),
        data=payload,
        data_content_type=_kind(payload) if content_type is None else content_type,
        metadata=metadata_of(metadata),
    )

    async def call(channel: Any) -> None:
        request.pubsub_name = await chosen(channel, pubsub)
        await runtime.DaprStub(channel).publish_event(request, metadata=token_metadata())

    ask(evolve(target, app_id=target.app_id or publish_app_id), call)
    out = output()
    if out.for_people:
        out.message(f"published to {request.topic} of {request.pubsub_name}")
    else:
        out.item({"pubsub": request.pubsub_name, "topic": request.topic, "result": "published"}, ())


def _only_topic(argument: str | None, option: str | None) -> str:
    if argument and option and argument != option:
        raise UsageProblem(f"two topics: {argument} and --topic {option}")
    topic = argument or option
    if not topic:
        raise UsageProblem("a topic is needed: as a word, or with --topic")
    return topic


def _kind(data: bytes) -> str:
    """The content type that data goes out with when nobody names one."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    try:
        value = json.loads(text)
    except ValueError:
        return "text/plain"
    is_event = isinstance(value, dict) and value.keys() >= _OF_AN_EVENT
    return "application/cloudevents+json" if is_event else "application/json"
