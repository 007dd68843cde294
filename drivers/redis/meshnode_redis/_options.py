"""The metadata fields that say where Redis is and how to talk to it, with Dapr's names and defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["UNUSED", "ConnectionOptions", "bad_durations", "parse_hosts", "seconds"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
UNUSED = "Accepted for existing files' sake, without effect: one pipelined connection serves everybody."


def seconds(text: str) -> float:
    """A Go duration in seconds; a bare number is in milliseconds, as in Dapr's Redis components.

    Raises `ValueError`.
    """
    text = text.strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text) / 1000
    sign = -1.0 if text.startswith("-") else 1.0
    body = text.lstrip("+-")
    if not body or _PART.sub("", body):
        raise ValueError(f"{text!r} is no duration")
    return sign * sum([float(number) * _UNITS[unit] for number, unit in _PART.findall(body)])


def parse_hosts(text: str, default_port: int) -> list[tuple[str, int]]:
    """`host`, `host:port` or `[v6]:port`, several with commas. Raises `ValueError`."""
    hosts = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        match = re.fullmatch(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>\d{1,5}))?", part)
        if match is None:
            raise ValueError(f"{part!r} is no host:port")
        hosts.append((match["v6"] or match["name"], int(match["port"] or default_port)))
    if not hosts:
        raise ValueError("is empty")
    return hosts


def bad_durations(fields: Mapping[str, str]) -> list[Problem]:
    """Problems of the fields whose text is no duration."""
    problems = []
    for name, text in fields.items():
        try:
            seconds(text)
        except ValueError as error:
            remedy = "for example 500ms or 5s; a bare number is in milliseconds"
            problems.append(Problem(str(error), field=name, remedy=remedy))
    return problems


@frozen
class ConnectionOptions:
    """What every component type on Redis has in its metadata.

    The one class here that others inherit from: a component's metadata is one flat table, so what the types
    have in common cannot be a field of each.
    """

    host: str = option("redisHost", "`host:port`; several with commas for a cluster, or for the sentinels.")
    port: int = option(
        "redisPort",
        "Port where `redisHost` names none; 0: 6379, at sentinels 26379.",
        default=0,
    )
    password: str = option("redisPassword", "Password.", default="", secret=True)
    username: str = option("redisUsername", "User name (Redis 6 and later).", default="")
    db: int = option("redisDB", "Number of the database; a cluster has only 0.", default=0)
    type: str = option("redisType", "One server, or a cluster.", default="node", allowed=("node", "cluster"))
    enable_tls: bool = option("enableTLS", "Connect with TLS.", default=False)
    insecure_skip_tls_verify: bool = option(
        "insecureSkipTLSVerify", "Do not check the server's certificate. For tests.", default=False
    )
    ca_cert: str = option(
        "caCert",
        "Authority that signed the server's certificate, PEM; without it the system's.",
        default="",
    )
    client_cert: str = option("clientCert", "Client certificate, PEM.", default="", secret=True)
    client_key: str = option("clientKey", "Client certificate's key, PEM.", default="", secret=True)
    failover: bool = option(
        "failover", "`redisHost` names sentinels, and `sentinelMasterName` what they watch.", default=False
    )
    sentinel_master_name: str = option(
        "sentinelMasterName", "What the sentinels call the master.", default=""
    )
    sentinel_username: str = option("sentinelUsername", "User name at the sentinels.", default="")
    sentinel_password: str = option("sentinelPassword", "Password at the sentinels.", default="", secret=True)
    max_retries: int = option(
        "redisMaxRetries",
        "How often connecting is tried again, and a read whose connection broke. -1: never.",
        default=3,
        aliases=("maxRetries",),
    )
    min_retry_interval: str = option(
        "redisMinRetryInterval", "Shortest pause before such a retry; -1: none.", default="8ms"
    )
    max_retry_interval: str = option(
        "redisMaxRetryInterval", "Longest pause before such a retry; 512ms when empty.", default=""
    )
    max_retry_backoff: str = option(
        "maxRetryBackoff", "Older name of redisMaxRetryInterval; a bare number is in nanoseconds.", default=""
    )
    dial_timeout: str = option("dialTimeout", "How long connecting may take.", default="5s")
    read_timeout: str = option("readTimeout", "How long an answer may take; -1: for ever.", default="3s")
    write_timeout: str = option(
        "writeTimeout", "How long sending may take; empty: as readTimeout.", default=""
    )
    use_entra_id: bool = option(
        "useEntraID",
        "Refused: no login by Entra ID.",
        default=False,
        aliases=("useAzureAD",),
    )
    pool_size: int = option("poolSize", UNUSED, default=0)
    min_idle_conns: int = option("minIdleConns", UNUSED, default=0)
    pool_timeout: str = option("poolTimeout", UNUSED, default="")
    max_conn_age: str = option("maxConnAge", UNUSED, default="")
    idle_check_frequency: str = option("idleCheckFrequency", UNUSED, default="")
    idle_timeout: str = option("idleTimeout", UNUSED, default="")

    def __attrs_post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ConfigError(problems)

    def problems(self) -> list[Problem]:
        """What is wrong with the fields; a component type adds what is wrong with its own."""
        return [*self._bad_hosts(), *bad_durations(self._durations()), *self._bad_combinations()]

    def _bad_hosts(self) -> list[Problem]:
        try:
            hosts = self.hosts
        except ValueError as error:
            return [Problem(str(error), field="redisHost", remedy="for example localhost:6379")]
        if not 0 <= self.port < 65536:
            return [Problem(f"{self.port} is no port", field="redisPort")]
        if self.port and any(port != self.port for _, port in hosts):
            remedy = "leave the port out of one of the two"
            return [Problem("redisHost names another port", field="redisPort", remedy=remedy)]
        if len(hosts) > 1 and not self.failover and self.type == "node":
            remedy = "set redisType to cluster, or failover to true"
            return [Problem("several addresses for a single server", field="redisHost", remedy=remedy)]
        return []

    def _durations(self) -> dict[str, str]:
        return {
            "redisMinRetryInterval": self.min_retry_interval,
            "redisMaxRetryInterval": self.max_retry_interval or "0",
            "maxRetryBackoff": self.max_retry_backoff or "0",
            "dialTimeout": self.dial_timeout,
            "readTimeout": self.read_timeout,
            "writeTimeout": self.write_timeout or "0",
        }

    def _bad_combinations(self) -> list[Problem]:
        problems = []
        if self.type not in ("node", "cluster"):
            problems.append(Problem(f"{self.type!r} is neither node nor cluster", field="redisType"))
        if self.failover and not self.sentinel_master_name:
            problems.append(Problem("is needed when failover is set", field="sentinelMasterName"))
        if self.failover and self.type == "cluster":
            problems.append(Problem("a cluster fails over by itself", field="failover"))
        if bool(self.client_cert) != bool(self.client_key):
            missing = "clientKey" if self.client_cert else "clientCert"
            problems.append(Problem("certificate and key go together", field=missing))
        if self.use_entra_id:
            problems.append(Problem("logging in by Entra ID is not built", field="useEntraID"))
        return problems

    @property
    def longest_pause(self) -> float:
        """Seconds between two attempts at most."""
        if self.max_retry_interval:
            return seconds(self.max_retry_interval)
        if self.max_retry_backoff.lstrip("-").isdigit():
            return int(self.max_retry_backoff) / 1e9
        return seconds(self.max_retry_backoff or "512ms")

    @property
    def hosts(self) -> list[tuple[str, int]]:
        return parse_hosts(self.host, self.port or (26379 if self.failover else 6379))
