"""The metadata fields of `pubsub.rabbitmq`, with Dapr's names and defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from attrs import evolve, frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_rabbitmq._address import Address, Tls, parse_address, tls_problems

__all__ = ["DECLARED_KINDS", "PubSubOptions"]

DECLARED_KINDS = ("fanout", "topic", "direct", "headers", "x-consistent-hash")
"""The kinds of exchange that are declared; with `exchangeDeclareMode: passive` any kind will do."""

_MANY = 100
"""Deliveries side by side where nothing says how many: Dapr would take everything that is there."""

_WHO_DECLARES = ("declare", "passive")


@final
@frozen
class PubSubOptions:
    """Metadata of `pubsub.rabbitmq`."""

    connection_string: str = option(
        "connectionString",
        "`amqp://user:password@host:port/vhost`, or amqps. Instead of the four fields below.",
        default="",
        secret=True,
        aliases=("host",),
    )
    protocol: str = option("protocol", "amqp or amqps.", default="", allowed=("amqp", "amqps"))
    hostname: str = option("hostname", "Host, or `host:port`.", default="localhost")
    username: str = option("username", "User name; guest if empty.", default="")
    password: str = option("password", "Password.", default="", secret=True)
    consumer_id: str = option("consumerID", "Name of the consumer group; the app id if empty.", default="")
    durable: bool = option("durable", "Exchanges and queues survive a restart of the broker.", default=True)
    deleted_when_unused: bool = option(
        "deletedWhenUnused",
        "The broker deletes a queue when its last consumer is gone, and what waits in it. Set it to false "
        "unless losing messages is fine.",
        default=True,
    )
    auto_ack: bool = option(
        "autoAck", "A message is acknowledged after its delivery, whatever came of that.", default=False
    )
    delivery_mode: int = option(
        "deliveryMode", "2: published messages survive a restart of the broker. 0, 1: they do not.", default=2
    )
    requeue_in_failure: bool | None = option(
        "requeueInFailure",
        "Whether a failed message goes back into its queue. If not, the broker dead-letters or drops it. "
        "Without this field it goes back, unless enableDeadLetter is set.",
        default=None,
    )
    redeliver_interval: timedelta = option(
        "redeliverInterval",
        "How long a failed message is kept from its queue. Not one of Dapr's.",
        default=timedelta(seconds=1),
    )
    prefetch_count: int = option(
        "prefetchCount",
        "Messages a subscription holds unacknowledged, up to 255; 0: as many as run side by side.",
        default=0,
    )
    reconnect_wait: timedelta = option(
        "reconnectWait",
        "Accepted without effect: the node paces its attempts.",
        default=timedelta(seconds=3),
        aliases=("reconnectWaitSeconds",),
    )
    max_len: int = option("maxLen", "Messages a queue holds at most; 0: any number.", default=0)
    max_len_bytes: int = option("maxLenBytes", "Bytes a queue holds at most; 0: any number.", default=0)
    exchange_kind: str = option("exchangeKind", "Kind of the topics' exchanges.", default="fanout")
    exchange_declare_mode: str = option(
        "exchangeDeclareMode",
        "passive: exchanges are somebody else's to make.",
        default="declare",
        allowed=_WHO_DECLARES,
    )
    queue_declare_mode: str = option(
        "queueDeclareMode",
        "passive: queues and what is bound to them are somebody else's to make.",
        default="declare",
        allowed=_WHO_DECLARES,
    )
    publisher_confirm: bool = option(
        "publisherConfirm", "Accepted without effect: every publication waits for its confirm.", default=True
    )
    enable_dead_letter: bool = option(
        "enableDeadLetter",
        "Failed messages go to the exchange `dlx-QUEUE` and so to the queue `dlq-QUEUE`.",
        default=False,
    )
    concurrency: str = option(
        "concurrency",
        "single: one message of a topic at a time.",
        default="parallel",
        allowed=("parallel", "single"),
        aliases=("concurrencyMode",),
    )
    ttl_in_seconds: timedelta | None = option(
        "ttlInSeconds", "Time to live of messages that are published without one.", default=None
    )
    client_name: str = option("clientName", "What the broker calls the connections.", default="")
    heart_beat: timedelta = option(
        "heartBeat", "Interval of the heartbeats; 0: none.", default=timedelta(seconds=10)
    )
    properties_to_metadata: bool = option(
        "publishMessagePropertiesToMetadata",
        "A message's properties and headers are delivered in its metadata, as `metadata.NAME`.",
        default=False,
    )
    sasl_external: bool = option(
        "saslExternal", "Log in with the client certificate (mechanism EXTERNAL).", default=False
    )
    ca_cert: str = option("caCert", "Authority that signed the broker's certificate, PEM.", default="")
    client_cert: str = option("clientCert", "Client certificate, PEM.", default="", secret=True)
    client_key: str = option("clientKey", "Client certificate's key, PEM.", default="", secret=True)

    def __attrs_post_init__(self) -> None:
        problems = [*self._bad_address(), *self._bad_numbers(), *self._bad_durations()]
        if self.exchange_declare_mode == "declare" and self.exchange_kind not in DECLARED_KINDS:
            remedy = f"one of {', '.join(DECLARED_KINDS)}, or exchangeDeclareMode passive"
            problems.append(Problem("cannot be declared", field="exchangeKind", remedy=remedy))
        if problems:
            raise ConfigError(problems)

    def _bad_address(self) -> list[Problem]:
        try:
            address = self.address
        except ValueError as error:
            name = "connectionString" if self.connection_string else "hostname"
            return [Problem(str(error), field=name)]
        if self.connection_string and self.protocol not in ("", address.scheme):
            return [Problem("differs from that of connectionString", field="protocol")]
        return tls_problems(
            self.tls,
            external=self.sasl_external,
            encrypted=address.encrypted,
            external_name="saslExternal",
        )

    def _bad_numbers(self) -> list[Problem]:
        limits = (
            ("deliveryMode", self.delivery_mode, 2),
            ("prefetchCount", self.prefetch_count, 255),
            ("maxLen", self.max_len, 2**63 - 1),
            ("maxLenBytes", self.max_len_bytes, 2**63 - 1),
        )
        return [
            Problem(f"must be between 0 and {most}", field=name)
            for name, value, most in limits
            if not 0 <= value <= most
        ]

    def _bad_durations(self) -> list[Problem]:
        problems = []
        if self.redeliver_interval <= timedelta(0):
            problems.append(Problem("must be more than 0", field="redeliverInterval"))
        if not timedelta(0) <= self.heart_beat < timedelta(seconds=65535):
            problems.append(Problem("must be between 0 and 65534 seconds", field="heartBeat"))
        if self.ttl_in_seconds is not None and self.ttl_in_seconds <= timedelta(0):
            problems.append(Problem("must be more than 0", field="ttlInSeconds"))
        return problems

    @property
    def address(self) -> Address:
        """Raises `ValueError`."""
        if self.connection_string:
            address = parse_address(self.connection_string)
        else:
            text = f"{self.protocol or 'amqp'}://{self.hostname}"
            address = parse_address(text, user=self.username, password=self.password)
        return evolve(address, external=self.sasl_external)

    @property
    def tls(self) -> Tls:
        return Tls(self.ca_cert, self.client_cert, self.client_key)

    def limit(self, wanted: int | None) -> int:
        """Deliveries side by side in a subscription that asks for `wanted`."""
        if self.concurrency == "single":
            return 1
        return wanted or self.prefetch_count or _MANY

    @property
    def requeues(self) -> bool:
        if self.requeue_in_failure is None:
            return not self.enable_dead_letter
        return self.requeue_in_failure
