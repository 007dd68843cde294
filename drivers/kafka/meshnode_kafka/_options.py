"""The metadata fields of `pubsub.kafka` and `bindings.kafka`, with Dapr's names and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["BindingOptions", "Options"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_ADDRESS = re.compile(r"(\[[^\]]+\]|[^:\[\]\s]+)(:\d{1,5})?")
_AUTH = ("none", "password", "mtls", "certificate", "oidc", "oidc_private_key_jwt", "awsiam")
_LEAST_PAUSE = 0.01
_OIDC = "Of `authType` `oidc`, which is refused."
_AWS = "Of `authType` `awsiam`, which is refused."
_REGISTRY = "Refused: Avro and schema registries are not offered; the application decodes what it gets."
_SEEK = "Of `seekOnStart`, which is refused."
_TRANSACTIONS = "Refused: Kafka's transactions are not offered."
_TRANSACTION = "Of transactions, which are refused."
_UNUSED = "Accepted for existing files' sake, without effect: "


def _seconds(text: str) -> float:
    """A Go duration in seconds; a bare number is in milliseconds. Raises `ValueError`."""
    text = text.strip()
    if re.fullmatch(r"\d+", text):
        return int(text) / 1000
    if not text or _PART.sub("", text):
        raise ValueError(f"{text!r} is no duration")
    return sum([float(number) * _UNITS[unit] for number, unit in _PART.findall(text)])


# `bindings.kafka` has all of these and three of its own: the one place where a class is worth extending.
@frozen
class Options:
    """Metadata of `pubsub.kafka`."""

    brokers: str = option("brokers", "`host:port` of one or more brokers, separated by commas.")
    consumer_group: str = option("consumerGroup", "Name of the consumer group.", default="")
    consumer_id: str = option(
        "consumerID", "The consumer group where `consumerGroup` is empty; the app id if empty.", default=""
    )
    client_id: str = option("clientID", "What the brokers log of us; the app id if empty.", default="")

    auth_type: str = option("authType", "How to authenticate.", default="", allowed=(*_AUTH, ""))
    auth_required: bool | None = option(
        "authRequired",
        "Older form of `authType`: false is `none`; true is `password` with a `saslPassword`, else `mtls`.",
        default=None,
    )
    sasl_username: str = option("saslUsername", "User for `password`.", default="")
    sasl_password: str = option("saslPassword", "Password for `password`.", default="", secret=True)
    sasl_mechanism: str = option(
        "saslMechanism",
        "SASL mechanism for `password`.",
        default="PLAINTEXT",
        allowed=("PLAINTEXT", "SHA-256", "SHA-512", ""),
    )
    disable_tls: bool = option(
        "disableTls", "Connect without TLS. (`authType` `none` always does.)", default=False
    )
    skip_verify: bool = option(
        "skipVerify", "Do not check the brokers' certificates. For tests.", default=False
    )
    ca_cert: str = option(
        "caCert", "Authority that signed the brokers' certificates, PEM; without it the system's.", default=""
    )
    client_cert: str = option("clientCert", "Client certificate for `mtls`, PEM.", default="", secret=True)
    client_key: str = option("clientKey", "Client certificate's key, PEM.", default="", secret=True)

    initial_offset: str = option(
        "initialOffset",
        "Where a group begins that has nothing committed.",
        default="newest",
        allowed=("newest", "oldest", ""),
    )
    consume_retry_enabled: bool = option(
        "consumeRetryEnabled",
        "Deliver a failed message again. `false`: it is given up, and its successor comes.",
        default=True,
    )
    consume_retry_interval: str = option(
        "consumeRetryInterval",
        "Pause before a failed message is delivered again. A bare number is milliseconds.",
        default="100ms",
    )
    back_off_policy: str = option(
        "backOffPolicy",
        "`constant`: `backOffDuration` between attempts. `exponential`: from `backOffInitialInterval`, "
        "1.5 times longer each time, up to `backOffMaxInterval`.",
        default="constant",
        allowed=("constant", "exponential"),
    )
    back_off_duration: str = option(
        "backOffDuration", "Takes the place of `consumeRetryInterval` where given.", default=""
    )
    back_off_initial_interval: str = option(
        "backOffInitialInterval", "First pause of `exponential`.", default="500ms"
    )
    back_off_max_interval: str = option(
        "backOffMaxInterval", "Longest pause of `exponential`.", default="60s"
    )
    back_off_max_retries: int = option(
        "backOffMaxRetries", "Redeliveries before a message is given up; -1: no limit.", default=-1
    )
    heartbeat_interval: timedelta = option(
        "heartbeatInterval",
        "Between two signs of life to the group's coordinator.",
        default=timedelta(seconds=3),
    )
    session_timeout: timedelta = option(
        "sessionTimeout",
        "Without a sign of life for this long, a member loses its partitions.",
        default=timedelta(seconds=10),
    )
    rebalance_strategy: str = option(
        "consumerGroupRebalanceStrategy",
        "How the group's partitions are dealt out.",
        default="range",
        allowed=("range", "sticky", "roundrobin"),
    )
    isolation_level: str = option(
        "consumerIsolationLevel",
        "`read_committed` leaves out what aborted transactions wrote.",
        default="read_uncommitted",
        allowed=("read_uncommitted", "read_committed", ""),
    )
    consumer_fetch_min: int = option(
        "consumerFetchMin", "Bytes that a broker collects before it answers a fetch.", default=1
    )
    consumer_fetch_default: int = option(
        "consumerFetchDefault", "Bytes that one fetch may bring of each partition.", default=1024 * 1024
    )
    channel_buffer_size: int = option(
        "channelBufferSize",
        "Messages of a partition that wait here for their turn, and deliveries side by side.",
        default=256,
    )
    max_message_bytes: int = option(
        "maxMessageBytes", "Largest message that is published; 0: 1 MiB.", default=0
    )
    compression: str = option(
        "compression",
        "Compression of what is published.",
        default="none",
        allowed=("none", "gzip", "snappy", "lz4", "zstd", ""),
    )
    escape_headers: bool = option(
        "escapeHeaders", "URL-escape the key and the headers of messages received.", default=False
    )
    exclude_header_meta_regex: str = option(
        "excludeHeaderMetaRegex",
        "Metadata whose name matches does not become a header, nor a header metadata.",
        default="",
    )
    refresh_interval: timedelta = option(
        "clientConnectionTopicMetadataRefreshInterval",
        "How often the brokers are asked for new partitions.",
        default=timedelta(minutes=8),
    )
    keep_alive_interval: timedelta = option(
        "clientConnectionKeepAliveInterval",
        "Idle connections are closed after this; 0: never.",
        default=timedelta(0),
    )
    version: str = option("version", f"{_UNUSED}the brokers say what they speak.", default="")
    use_avro_json: bool = option("useAvroJson", f"{_UNUSED}Avro is not offered.", default=False)
    schema_caching: bool = option("schemaCachingEnabled", f"{_UNUSED}Avro is not offered.", default=True)
    schema_ttl: str = option("schemaLatestVersionCacheTTL", f"{_UNUSED}Avro is not offered.", default="")

    schema_registry_url: str = option("schemaRegistryURL", _REGISTRY, default="")
    schema_registry_key: str = option("schemaRegistryAPIKey", _REGISTRY, default="", secret=True)
    schema_registry_secret: str = option("schemaRegistryAPISecret", _REGISTRY, default="", secret=True)
    oidc_token_endpoint: str = option("oidcTokenEndpoint", _OIDC, default="")
    oidc_client_id: str = option("oidcClientID", _OIDC, default="")
    oidc_client_secret: str = option("oidcClientSecret", _OIDC, default="", secret=True)
    oidc_scopes: str = option("oidcScopes", _OIDC, default="")
    oidc_extensions: str = option("oidcExtensions", _OIDC, default="")
    oidc_resource: str = option("oidcResource", _OIDC, default="")
    oidc_audience: str = option("oidcAudience", _OIDC, default="")
    oidc_assertion_cert: str = option("oidcClientAssertionCert", _OIDC, default="", secret=True)
    oidc_assertion_key: str = option("oidcClientAssertionKey", _OIDC, default="", secret=True)
    aws_region: str = option("awsRegion", _AWS, default="", aliases=("region",))
    aws_access_key: str = option("awsAccessKey", _AWS, default="", secret=True, aliases=("accessKey",))
    aws_secret_key: str = option("awsSecretKey", _AWS, default="", secret=True, aliases=("secretKey",))
    aws_token: str = option("awsSessionToken", _AWS, default="", secret=True, aliases=("sessionToken",))
    aws_role: str = option("awsIamRoleArn", _AWS, default="", aliases=("assumeRoleArn",))
    aws_session: str = option("awsStsSessionName", _AWS, default="", aliases=("sessionName",))
    seek_on_start: str = option(
        "seekOnStart",
        "All but `never` is refused: a subscription begins where its group left off, or at `initialOffset`.",
        default="never",
    )
    seek_value: str = option("seekValue", _SEEK, default="")
    seek_apply_when: str = option("seekApplyWhen", _SEEK, default="")
    seek_once: str = option("seekOnce", _SEEK, default="")
    seek_partition: str = option("seekPartition", _SEEK, default="")
    producer_transactions: bool = option("producerTransactionsEnabled", _TRANSACTIONS, default=False)
    consumer_transactions: bool = option("consumerTransactionsEnabled", _TRANSACTIONS, default=False)
    transactional_id_prefix: str = option("transactionalIdPrefix", _TRANSACTION, default="")
    transaction_timeout: str = option("transactionTimeout", _TRANSACTION, default="")

    def __attrs_post_init__(self) -> None:
        problems = [*_refused(self), *_numbers(self), *_texts(self), *_authentication(self)]
        if problems:
            raise ConfigError(problems)

    @property
    def authentication(self) -> str:
        """One of the names of `authType`; what its older form says where that is empty."""
        if self.auth_type or self.auth_required is None:
            return self.auth_type.lower()
        if not self.auth_required:
            return "none"
        return "password" if self.sasl_password else "mtls"

    @property
    def tls(self) -> bool:
        return not self.disable_tls and self.authentication != "none"

    @property
    def from_newest(self) -> bool:
        return self.initial_offset.lower() != "oldest"

    def pause(self, attempt: int) -> float:
        """Seconds before a failed message is delivered again; the first attempt is 1. Never a hot loop."""
        if self.back_off_policy.lower() == "constant":
            return max(_LEAST_PAUSE, _seconds(self.back_off_duration or self.consume_retry_interval))
        first, longest = _seconds(self.back_off_initial_interval), _seconds(self.back_off_max_interval)
        return max(_LEAST_PAUSE, min(longest, first * 1.5 ** min(attempt - 1, 100)))

    def gives_up(self, attempt: int) -> bool:
        """Whether a message is to be given up that has failed that often."""
        return not self.consume_retry_enabled or 0 <= self.back_off_max_retries < attempt


@final
@frozen
class BindingOptions(Options):
    """Metadata of `bindings.kafka`."""

    topics: str = option("topics", "Topics to read, separated by commas.", default="")
    publish_topic: str = option("publishTopic", "The topic that `create` publishes to.", default="")

    @property
    def topic_names(self) -> list[str]:
        return list(dict.fromkeys(filter(None, (name.strip() for name in self.topics.split(",")))))


def _refused(options: Options) -> Iterator[Problem]:
    avro = options.schema_registry_url, options.schema_registry_key, options.schema_registry_secret
    if any(avro):
        yield Problem("Avro and schema registries are not offered", field="schemaRegistryURL")
    if options.authentication in ("oidc", "oidc_private_key_jwt", "awsiam"):
        remedy = "use password, mtls, certificate or none"
        yield Problem(f"{options.authentication} is not offered", field="authType", remedy=remedy)
    if options.seek_on_start.lower() not in ("", "never"):
        remedy = "move the group's offsets with Kafka's own tool"
        yield Problem("a subscription begins where its group left off", field="seekOnStart", remedy=remedy)
    transactions = (
        ("producerTransactionsEnabled", options.producer_transactions),
        ("consumerTransactionsEnabled", options.consumer_transactions),
    )
    for name, wanted in transactions:
        if wanted:
            yield Problem("Kafka's transactions are not offered", field=name)


def _numbers(options: Options) -> Iterator[Problem]:
    least = (
        ("consumerFetchMin", options.consumer_fetch_min, 1),
        ("consumerFetchDefault", options.consumer_fetch_default, 1),
        ("channelBufferSize", options.channel_buffer_size, 1),
        ("maxMessageBytes", options.max_message_bytes, 0),
        ("backOffMaxRetries", options.back_off_max_retries, -1),
    )
    for name, value, minimum in least:
        if value < minimum:
            yield Problem(f"must be at least {minimum}", field=name)
    if options.heartbeat_interval <= timedelta(0):
        yield Problem("must be more than 0", field="heartbeatInterval")
    if options.session_timeout <= options.heartbeat_interval:
        yield Problem("must be more than heartbeatInterval", field="sessionTimeout")
    if options.refresh_interval <= timedelta(0):
        yield Problem("must be more than 0", field="clientConnectionTopicMetadataRefreshInterval")
    if options.keep_alive_interval < timedelta(0):
        yield Problem("must not be negative", field="clientConnectionKeepAliveInterval")


def _texts(options: Options) -> Iterator[Problem]:
    for address in options.brokers.split(","):
        if not _ADDRESS.fullmatch(address.strip()):
            yield Problem(f"{address.strip()!r} is no host:port", field="brokers")
    durations = (
        ("consumeRetryInterval", options.consume_retry_interval),
        ("backOffDuration", options.back_off_duration or "0"),
        ("backOffInitialInterval", options.back_off_initial_interval),
        ("backOffMaxInterval", options.back_off_max_interval),
    )
    for name, text in durations:
        try:
            _seconds(text)
        except ValueError as error:
            yield Problem(str(error), field=name, remedy="for instance 200ms")
    try:
        re.compile(options.exclude_header_meta_regex)
    except re.error as error:
        yield Problem(f"is no regular expression: {error}", field="excludeHeaderMetaRegex")


def _authentication(options: Options) -> Iterator[Problem]:
    kind = options.authentication
    if not kind:
        yield Problem("is missing", field="authType", remedy="none, password, mtls or certificate")
    if kind == "password":
        for name, text in (
            ("saslUsername", options.sasl_username),
            ("saslPassword", options.sasl_password),
        ):
            if not text:
                yield Problem("is missing", field=name, remedy="authType password needs it")
    if kind == "mtls":
        yield from _mutual_tls(options)
    if kind == "certificate" and not options.ca_cert:
        yield Problem("is missing", field="caCert", remedy="authType certificate needs it")


def _mutual_tls(options: Options) -> Iterator[Problem]:
    if options.disable_tls:
        yield Problem("cannot go with authType mtls", field="disableTls")
    for name, text in (("clientCert", options.client_cert), ("clientKey", options.client_key)):
        if not text:
            yield Problem("is missing", field=name, remedy="authType mtls needs it")
