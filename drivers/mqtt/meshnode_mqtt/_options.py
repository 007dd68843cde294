"""The metadata fields of the MQTT components, with Dapr's names and defaults."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_mqtt._topics import check_filter

__all__ = ["BindingOptions", "Broker", "PubSubOptions", "broker_of"]

_PLAIN = ("tcp", "mqtt")
_SECURE = ("ssl", "tls", "tcps", "mqtts")
_URL = "`tcp://user:password@host:port`, or `ssl://` for TLS."
_CA = "Authority that signed the broker's certificate, PEM; without it the system's."
_RETAIN = "Publish so that the broker keeps the last message of a topic."
_CLEAN = "The broker forgets the subscriptions, and what waits for them, when the connection ends."
_INTERVAL = "Pause before a message that failed is delivered again. (Not in Dapr.)"
_PAUSE = timedelta(seconds=5)


@final
@frozen
class PubSubOptions:
    """Metadata of `pubsub.mqtt3` and `pubsub.mqtt`."""

    url: str = option("url", _URL, secret=True)
    consumer_id: str = option(
        "consumerID", "Client id, by which the broker knows the session; the app id if empty.", default=""
    )
    qos: int = option("qos", "Quality of service of publications and subscriptions: 0, 1 or 2.", default=1)
    retain: bool = option("retain", _RETAIN, default=False)
    clean_session: bool = option("cleanSession", _CLEAN, default=False)
    ca_cert: str = option("caCert", _CA, default="")
    client_cert: str = option("clientCert", "Client certificate, PEM.", default="", secret=True)
    client_key: str = option("clientKey", "The client certificate's key, PEM.", default="", secret=True)
    redeliver_interval: timedelta = option("redeliverInterval", _INTERVAL, default=_PAUSE)
    back_off_max_retries: int = option(
        "backOffMaxRetries", "Without effect, as in Dapr: a message is tried until it is taken.", default=0
    )

    def __attrs_post_init__(self) -> None:
        problems = _common_problems(self)
        if self.qos not in (0, 1, 2):
            problems.append(Problem(f"{self.qos} is not 0, 1 or 2", field="qos"))
        if problems:
            raise ConfigError(problems)


@final
@frozen
class BindingOptions:
    """Metadata of `bindings.mqtt3` and `bindings.mqtt`."""

    url: str = option("url", _URL, secret=True)
    topic: str = option("topic", "Topic to read from, and to publish to unless a request says another.")
    consumer_id: str = option("consumerID", "Client id, by which the broker knows the session.")
    retain: bool = option("retain", _RETAIN, default=False)
    clean_session: bool = option("cleanSession", _CLEAN, default=False)
    ca_cert: str = option("caCert", _CA, default="")
    client_cert: str = option("clientCert", "Client certificate, PEM.", default="", secret=True)
    client_key: str = option("clientKey", "The client certificate's key, PEM.", default="", secret=True)
    back_off_max_retries: int = option(
        "backOffMaxRetries",
        "How often an event that failed is offered again before it is left with the broker until the next "
        "connection; -1: without end.",
        default=-1,
    )
    redeliver_interval: timedelta = option("redeliverInterval", _INTERVAL, default=_PAUSE)
    qos: int = option("qos", "Without effect, as in Dapr: it is 1.", default=1)

    def __attrs_post_init__(self) -> None:
        problems = _common_problems(self)
        if wrong := check_filter(self.topic):
            problems.append(Problem(wrong, field="topic"))
        if not self.consumer_id:
            problems.append(Problem("is empty", field="consumerID"))
        if self.back_off_max_retries < -1:
            problems.append(Problem("is less than -1", field="backOffMaxRetries"))
        if problems:
            raise ConfigError(problems)


@final
@frozen
class Broker:
    """Where a broker is and how to log in. `tls` is None for plain TCP."""

    host: str
    port: int
    user: str
    password: str
    tls: ssl.SSLContext | None

    def __str__(self) -> str:
        return f"mqtt broker at {self.host}:{self.port}"


def _common_problems(options: PubSubOptions | BindingOptions) -> list[Problem]:
    problems = []
    try:
        _split(options.url)
    except ValueError as error:
        problems.append(Problem(str(error), field="url", remedy="for example tcp://localhost:1883"))
    if bool(options.client_cert) != bool(options.client_key):
        missing = "clientKey" if options.client_cert else "clientCert"
        problems.append(Problem("certificate and key go together", field=missing))
    if options.redeliver_interval < timedelta(0):
        problems.append(Problem("must not be negative", field="redeliverInterval"))
    if not problems:
        try:
            _tls_context(options)
        except (ssl.SSLError, ValueError) as error:
            field = "clientCert" if options.client_cert and _is_usable(options.ca_cert) else "caCert"
            problems.append(Problem(f"cannot be used: {error}", field=field))
    return problems


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in (*_PLAIN, *_SECURE):
        raise ValueError(f"scheme {parts.scheme!r} is not one of {', '.join((*_PLAIN, *_SECURE))}")
    if not parts.hostname or parts.port == 0:
        raise ValueError("it names no host")
    return parts


def _is_usable(authority: str) -> bool:
    try:
        ssl.create_default_context(cadata=authority or None)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _tls_context(options: PubSubOptions | BindingOptions) -> ssl.SSLContext | None:
    if _split(options.url).scheme in _PLAIN:
        return None
    context = ssl.create_default_context(cadata=options.ca_cert or None)
    if options.client_cert:
        with TemporaryDirectory(prefix="meshnode-mqtt-") as folder:  # Python's ssl takes files only
            path = Path(folder, "client.pem")
            path.touch(mode=0o600)
            path.write_text(f"{options.client_key}\n{options.client_cert}\n")
            context.load_cert_chain(path)
    return context


def broker_of(options: PubSubOptions | BindingOptions) -> Broker:
    parts = _split(options.url)
    tls = _tls_context(options)
    return Broker(
        host=parts.hostname or "",
        port=parts.port or (1883 if tls is None else 8883),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
    )
