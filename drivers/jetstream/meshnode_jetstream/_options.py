"""The metadata fields of `pubsub.jetstream`, with Dapr's names and defaults."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_NAME = re.compile(r"[^\s.*>/\\]+")


def _seconds(text: str) -> float:
    """A Go duration. Raises `ValueError`."""
    if not text or _PART.sub("", text):
        raise ValueError(f"{text!r} is no duration")
    return sum([float(number) * _UNITS[unit] for number, unit in _PART.findall(text)])


@final
@frozen
class Options:
    """Metadata of `pubsub.jetstream`."""

    nats_url: str = option("natsURL", "`nats://host:port` or `tls://host:port`; several with commas.")
    jwt: str = option("jwt", "User JWT; goes with seedKey.", default="", secret=True)
    seed_key: str = option("seedKey", "Seed of the user's nkey; goes with jwt.", default="", secret=True)
    token: str = option("token", "Token to log in with.", default="", secret=True)
    tls_client_cert: str = option("tls_client_cert", "Client certificate: a file, or PEM.", default="")
    tls_client_key: str = option(
        "tls_client_key", "The client certificate's key: a file, or PEM.", default="", secret=True
    )
    name: str = option(
        "name", "Name of the connection, as the server lists it.", default="dapr.io - pubsub.jetstream"
    )
    stream_name: str = option(
        "streamName", "Stream to consume from; without it the one that holds the topic's subject.", default=""
    )
    durable_name: str = option(
        "durableName",
        "Name of the consumer that outlives its subscribers. Without it each subscription has its own.",
        default="",
    )
    queue_group_name: str = option(
        "queueGroupName", "Group among whose members the consumer's messages are divided.", default=""
    )
    start_sequence: int = option(
        "startSequence", "First message, with `deliverPolicy: sequence`; 0: not set.", default=0
    )
    start_time: int | None = option(
        "startTime", "Time of the first message in Unix seconds, with `deliverPolicy: time`.", default=None
    )
    flow_control: bool = option("flowControl", "Flow control of a push consumer.", default=False)
    ack_wait: timedelta | None = option(
        "ackWait",
        "How long a message is a consumer's before it goes to another, and the pause before one that failed "
        "comes again; the server's 30s, and 1s, if not set.",
        default=None,
    )
    max_deliver: int = option("maxDeliver", "How often a message is delivered; 0: without end.", default=0)
    back_off: str = option(
        "backOff", "Pauses before the second, third, … delivery, as `50ms, 1s, 10s`.", default=""
    )
    max_ack_pending: int = option(
        "maxAckPending", "Messages under way for the consumer as a whole; 0: the server's 1000.", default=0
    )
    replicas: int = option("replicas", "Replicas of the consumer's state; 0: as the stream.", default=0)
    memory_storage: bool = option("memoryStorage", "The consumer's state in memory only.", default=False)
    rate_limit: int = option("rateLimit", "Bits per second of a push consumer; 0: no limit.", default=0)
    heartbeat: timedelta | None = option(
        "heartbeat", "Heartbeat of a push consumer.", default=None, aliases=("hearbeat",)
    )
    deliver_policy: str = option(
        "deliverPolicy",
        "Where a new consumer begins.",
        default="all",
        allowed=("all", "last", "new", "sequence", "time"),
    )
    deliver_all: bool = option("deliverAll", "Without effect, as in Dapr: see deliverPolicy.", default=True)
    ack_policy: str = option(
        "ackPolicy",
        "`all` takes one message at a time; with `none` the server forgets a message as it sends it.",
        default="explicit",
        allowed=("explicit", "all", "none"),
    )
    domain: str = option("domain", "JetStream domain.", default="")
    api_prefix: str = option(
        "apiPrefix", "Prefix of JetStream's API, if not `$JS.API`; goes before domain.", default=""
    )
    concurrency: str = option(
        "concurrency",
        "One message at a time, or up to maxAckPending (100 if not set) side by side.",
        default="single",
        allowed=("single", "parallel"),
        aliases=("concurrencyMode",),
    )

    def __attrs_post_init__(self) -> None:
        problems = [*self._bad_pairs(), *self._bad_names(), *self._bad_numbers(), *self._bad_choices()]
        if problems:
            raise ConfigError(problems)

    def _bad_pairs(self) -> list[Problem]:
        problems = []
        if not self.servers:
            problems.append(Problem("is empty", field="natsURL", remedy="for example nats://localhost:4222"))
        for one, other in (
            (("jwt", self.jwt), ("seedKey", self.seed_key)),
            (("tls_client_cert", self.tls_client_cert), ("tls_client_key", self.tls_client_key)),
        ):
            if bool(one[1]) != bool(other[1]):
                missing, present = (other, one) if one[1] else (one, other)
                problems.append(Problem(f"is needed beside {present[0]}", field=missing[0]))
        schemes = {one.partition("://")[0] for one in self.servers if "://" in one}
        if strange := schemes - {"nats", "tls"}:
            what = f"scheme {', '.join(sorted(strange))!r} is neither nats nor tls"
            problems.append(Problem(what, field="natsURL", remedy="for example nats://localhost:4222"))
        return problems

    def _bad_names(self) -> list[Problem]:
        names = (("streamName", self.stream_name), ("durableName", self.durable_name))
        return [
            Problem(f"{text!r} is no name: no blanks, dots, slashes, * or >", field=field)
            for field, text in names
            if text and not _NAME.fullmatch(text)
        ]

    def _bad_numbers(self) -> list[Problem]:
        numbers = {
            "startSequence": self.start_sequence,
            "replicas": self.replicas,
            "rateLimit": self.rate_limit,
            "ackWait": self.ack_wait.total_seconds() if self.ack_wait else 0,
            "heartbeat": self.heartbeat.total_seconds() if self.heartbeat else 0,
        }
        problems = [Problem("must not be negative", field=name) for name, one in numbers.items() if one < 0]
        try:
            pauses = self.pauses
        except ValueError as error:
            remedy = "durations with commas between them: 50ms, 1s, 10s"
            return [*problems, Problem(str(error), field="backOff", remedy=remedy)]
        if 0 < self.max_deliver < len(pauses):
            remedy = f"at least {len(pauses)}, or leave it out"
            problems.append(Problem("is less than the pauses of backOff", field="maxDeliver", remedy=remedy))
        return problems

    def _bad_choices(self) -> list[Problem]:
        choices = (
            ("deliverPolicy", self.deliver_policy, ("all", "last", "new", "sequence", "time")),
            ("ackPolicy", self.ack_policy, ("explicit", "all", "none")),
            ("concurrency", self.concurrency, ("single", "parallel")),
        )
        return [
            Problem(f"{value!r} is not one of {', '.join(allowed)}", field=field)
            for field, value, allowed in choices
            if value not in allowed
        ]

    @property
    def servers(self) -> list[str]:
        return [one.strip() for one in self.nats_url.split(",") if one.strip()]

    @property
    def pauses(self) -> list[float]:
        """`backOff` in seconds. Raises `ValueError`."""
        parts = self.back_off.strip().removeprefix("[").removesuffix("]").split(",")
        return [_seconds(part.strip().strip("\"'")) for part in parts if part.strip()]

    @property
    def prefix(self) -> str:
        """Of the subjects of JetStream's API."""
        if self.domain and not self.api_prefix:
            return f"$JS.{self.domain}.API"
        return self.api_prefix.removesuffix(".") or "$JS.API"

    @property
    def limit(self) -> int:
        """Deliveries side by side, where the subscription does not say."""
        if self.concurrency == "single":
            return 1
        return self.max_ack_pending if self.max_ack_pending > 0 else 100
