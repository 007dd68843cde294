"""`meshnode subscribe`: the events of a topic as they come, over a streaming subscription.

An event is acknowledged when it is printed. What was not printed, because of Ctrl-C, `--count` or a reader
that went away, is still the topic's: the node gives it back when the stream ends, and with the stream the
subscription has gone. Ctrl-C lets the event at hand be printed and acknowledged; a second one does not wait.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rich_click as click

from meshnode.cli._client import Target, opened, target_options, token_metadata
from meshnode.cli._errors import CliError
from meshnode.cli._exit import ExitCode
from meshnode.cli._output import Output
from meshnode.cli._payload import payload_row
from meshnode.cli._pubsub import chosen, metadata_of, metadata_option, pubsub_option
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_FAREWELL = 2.0
"""Seconds for the last acknowledgement to arrive after Ctrl-C."""

_PATH = "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1"


@click.command("subscribe", cls=Verb)
@click.argument("topic")
@pubsub_option
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--raw", is_flag=True, help="Messages are taken as they are, not as CloudEvents.")
@metadata_option
@target_options
def command(
    target: Target, topic: str, pubsub: str, count: int | None, raw: bool, metadata: tuple[str, ...]
) -> int:
    """Print the events of TOPIC as they come, until Ctrl-C; with -o jsonl every line is an object.

    The command takes part as one more instance of the application whose node is asked: they share the
    topic's events, so what is printed here does not reach the application. To look on without taking
    anything away, ask the node of an app id of its own (`meshnode run --app-id watcher`).

    An event is acknowledged once it is printed.
    """
    import trio

    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    wanted = metadata_of(metadata) | ({"rawPayload": "true"} if raw else {})
    initial = runtime.SubscribeTopicEventsRequestInitialAlpha1(
        pubsub_name=pubsub, topic=topic, metadata=wanted
    )
    address = target.resolve()
    try:
        return trio.run(_follow, output(), address, target.timeout, initial, count)
    except trio.TooSlowError:
        raise CliError(f"the node at {address} did not answer within {target.timeout:g} s") from None


async def _follow(out: Output, address: str, timeout: float, initial: Any, count: int | None) -> ExitCode:
    import trio

    with trio.fail_after(timeout) as patience:
        async with opened(address) as channel:
            initial.pubsub_name = await chosen(channel, initial.pubsub_name)
            async with _request(channel) as stream:
                await _begin(stream, initial)
                patience.deadline = math.inf
                if out.for_people:
                    out.message(f"subscribed to {initial.topic} of {initial.pubsub_name}; Ctrl-C ends")
                code = await _until_ctrl_c(out, stream, count)
    return code


def _request(channel: Any) -> Any:
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    handler = runtime.DaprBase().__mapping__()[_PATH]
    return channel.request(
        _PATH, handler.cardinality, handler.request_type, handler.reply_type, metadata=token_metadata()
    )


async def _begin(stream: Any, initial: Any) -> None:
    """Returns when the subscription stands. A refusal is the stream's status."""
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    await stream.send_message(runtime.SubscribeTopicEventsRequestAlpha1(initial_request=initial))
    if await stream.recv_message() is None:
        await _end(stream)


async def _until_ctrl_c(out: Output, stream: Any, count: int | None) -> ExitCode:
    import trio

    with trio.CancelScope() as listening, _ended_by_ctrl_c(listening):
        await _print_events(out, stream, count)
    if not listening.cancelled_caught:
        await _end(stream)
        return ExitCode.SUCCESS
    with trio.move_on_after(_FAREWELL):
        await _end(stream)
    return ExitCode.INTERRUPTED


@contextmanager
def _ended_by_ctrl_c(scope: Any) -> Iterator[None]:
    """The first Ctrl-C cancels the scope; the second does what it always does, wherever we are."""
    import trio

    token = trio.lowlevel.current_trio_token()

    def first(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, usual)
        token.run_sync_soon(scope.cancel)

    usual = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


async def _print_events(out: Output, stream: Any, count: int | None) -> None:
    import trio

    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    printed = 0
    while printed != count:
        message = await stream.recv_message()
        if message is None:
            break
        event = message.event_message
        if event is None:
            continue
        _show(out, event)
        printed += 1
        processed = runtime.SubscribeTopicEventsRequestProcessedAlpha1(
            id=event.id, status=runtime.TopicEventResponse()
        )
        with trio.CancelScope(shield=True):  # Ctrl-C may end our listening, not what has been printed
            await stream.send_message(runtime.SubscribeTopicEventsRequestAlpha1(event_processed=processed))


async def _end(stream: Any) -> None:
    """Our side ends; the node's end says that it has read all acknowledgements, and what it thinks of it."""
    await stream.end()
    while await stream.recv_message() is not None:
        pass
    await stream.recv_trailing_metadata()


def _show(out: Output, event: Any) -> None:
    extensions = event.extensions.to_dict() if event.extensions is not None else {}
    if not out.for_people:
        row = {
            "id": event.id,
            "source": event.source,
            "type": event.type,
            "topic": event.topic,
            "pubsub": event.pubsub_name,
            "content_type": event.data_content_type,
            **payload_row(event.data),
            "extensions": extensions,
        }
        out.one_line(row)
        return
    text = event.data.decode("utf-8", "backslashreplace").replace("\r", "\\r").replace("\n", "\\n")
    when = extensions.get("time")
    out.text(f"{when if isinstance(when, str) else '-'} {event.source or '-'} {text}")
