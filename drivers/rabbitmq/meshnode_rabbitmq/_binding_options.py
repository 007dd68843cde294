"""The metadata fields of `bindings.rabbitmq`, with Dapr's names and defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from attrs import evolve, frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_rabbitmq._address import Address, Tls, parse_address, tls_problems

__all__ = ["BindingOptions"]


@final
@frozen
class BindingOptions:
    """Metadata of `bindings.rabbitmq`."""

    host: str = option("host", "`amqp://user:password@host:port/vhost`, or amqps.", secret=True)
    queue_name: str = option("queueName", "The queue.")
    durable: bool = option("durable", "The queue survives a restart of the broker.", default=False)
    delete_when_unused: bool = option(
        "deleteWhenUnused", "The broker deletes the queue when its last consumer is gone.", default=False
    )
    exclusive: bool = option(
        "exclusive",
        "The queue is this component's alone, and gone with its connection.",
        default=False,
    )
    ttl_in_seconds: timedelta | None = option(
        "ttlInSeconds", "Time to live of the queue's messages.", default=None
    )
    prefetch_count: int = option(
        "prefetchCount",
        "Events fetched ahead of the one that is handled; 0: none.",
        default=0,
    )
    max_priority: int | None = option(
        "maxPriority", "Makes it a priority queue, with priorities up to this, 1 to 255.", default=None
    )
    content_type: str = option(
        "contentType", "Content type of what is sent without one.", default="text/plain"
    )
    redeliver_interval: timedelta = option(
        "redeliverInterval",
        "How long an event that failed is kept from its queue. Not one of Dapr's.",
        default=timedelta(seconds=1),
    )
    reconnect_wait: timedelta = option(
        "reconnectWaitInSeconds",
        "Accepted without effect: the node paces its attempts.",
        default=timedelta(seconds=5),
    )
    ca_cert: str = option("caCert", "Authority that signed the broker's certificate, PEM.", default="")
    client_cert: str = option("clientCert", "Client certificate, PEM.", default="", secret=True)
    client_key: str = option("clientKey", "Client certificate's key, PEM.", default="", secret=True)
    external_sasl: bool = option(
        "externalSasl",
        "Log in with the client certificate (mechanism EXTERNAL).",
        default=False,
        aliases=("saslExternal",),
    )

    def __attrs_post_init__(self) -> None:
        problems = self._bad_address()
        if not self.queue_name:
            problems.append(Problem("is empty", field="queueName"))
        if not 0 <= self.prefetch_count <= 65535:
            problems.append(Problem("must be between 0 and 65535", field="prefetchCount"))
        if self.max_priority is not None and not 1 <= self.max_priority <= 255:
            problems.append(Problem("must be between 1 and 255", field="maxPriority"))
        if self.ttl_in_seconds is not None and self.ttl_in_seconds <= timedelta(0):
            problems.append(Problem("must be more than 0", field="ttlInSeconds"))
        if self.redeliver_interval <= timedelta(0):
            problems.append(Problem("must be more than 0", field="redeliverInterval"))
        if problems:
            raise ConfigError(problems)

    def _bad_address(self) -> list[Problem]:
        try:
            address = self.address
        except ValueError as error:
            return [Problem(str(error), field="host")]
        return tls_problems(
            self.tls,
            external=self.external_sasl,
            encrypted=address.encrypted,
            external_name="externalSasl",
        )

    @property
    def address(self) -> Address:
        """Raises `ValueError`."""
        return evolve(parse_address(self.host), external=self.external_sasl)

    @property
    def tls(self) -> Tls:
        return Tls(self.ca_cert, self.client_cert, self.client_key)
