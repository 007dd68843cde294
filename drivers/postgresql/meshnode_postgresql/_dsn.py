"""A connection string taken apart.

It may be a URL or words `name=value`, as Dapr's component takes it. That one's library knows names of its own
(`pool_…`) and takes all others for settings of the session; here these become libpq's `options`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final
from urllib.parse import parse_qsl, quote, urlencode

from attrs import field, frozen
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict

from meshnode.errors import ConfigError, Problem
from meshnode_postgresql._gotime import parse_duration

__all__ = ["Dsn", "parse_dsn"]

_WORD = re.compile(r"\s*([^\s=']+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)", re.DOTALL)
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_COUNTS = frozenset({"pool_max_conns", "pool_min_conns", "pool_min_idle_conns"})
_DURATIONS = frozenset(
    {
        "pool_max_conn_lifetime",
        "pool_max_conn_lifetime_jitter",
        "pool_max_conn_idle_time",
        "pool_health_check_period",
    }
)
# How that library prepares statements; nothing is prepared here.
_UNUSED = frozenset({"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity"})
_NOTHING: Mapping[str, str] = {}
_KEYWORDS = frozenset(one.keyword.decode() for one in pq.Conninfo.get_defaults())


@final
@frozen
class Dsn:
    """`settings` are libpq's. Times are in seconds; `max_connections` None means that nothing was said."""

    settings: Mapping[str, str] = field(repr=False)
    max_connections: int | None = None
    max_lifetime: float = 3600.0
    max_idle: float = 1800.0
    sweep_period: float = 60.0
    connect_timeout: float | None = None


def parse_dsn(text: str, given: Mapping[str, str] = _NOTHING) -> Dsn:
    """Raises `ConfigError`, which never repeats the text, for there may be a password in it.

    `given` are libpq's settings that come from elsewhere and go before the text's.
    """
    pairs = _from_url(text) if text.startswith(("postgres://", "postgresql://")) else _from_words(text)
    if not pairs and not given:
        raise _problem("is empty")
    settings: dict[str, str] = {}
    pool: dict[str, str] = {}
    session: dict[str, str] = {}
    for name, value in pairs.items():
        name = "dbname" if name == "database" else name
        if name in _COUNTS or name in _DURATIONS:
            pool[name] = value
        elif name in _KEYWORDS:
            settings[name] = value
        elif name not in _UNUSED:
            session[name] = value
    settings |= given
    if session:
        settings["options"] = " ".join(
            filter(None, [settings.get("options"), *map(_setting, session.items())])
        )
    timeout = settings.pop("connect_timeout", "")
    settings |= {"client_encoding": "UTF8"}
    settings.setdefault("gssencmode", "disable")
    return Dsn(
        settings=settings,
        max_connections=_count(pool, "pool_max_conns", 1),
        max_lifetime=_seconds(pool, "pool_max_conn_lifetime", 3600.0),
        max_idle=_seconds(pool, "pool_max_conn_idle_time", 1800.0),
        sweep_period=_seconds(pool, "pool_health_check_period", 60.0),
        connect_timeout=_connect_timeout(timeout),
    )


def _from_url(text: str) -> dict[str, str]:
    base, _, query = text.partition("?")
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    known = {name: value for name, value in pairs.items() if name in _KEYWORDS}
    try:
        found = conninfo_to_dict(f"{base}?{urlencode(known, quote_via=quote)}" if known else base)
    except ProgrammingError:
        raise _problem("is no valid URL") from None
    return {**pairs, **{name: str(value) for name, value in found.items()}}


def _from_words(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    at = 0
    stripped = text.strip()
    while at < len(stripped):
        word = _WORD.match(stripped, at)
        if word is None:
            raise _problem("is neither a URL nor words of the form name=value")
        name, value = word.groups()
        value = value[1:-1] if value.startswith("'") else value
        pairs[name] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        at = word.end()
    return pairs


def _setting(pair: tuple[str, str]) -> str:
    name, value = pair
    if not _SETTING.fullmatch(name):
        raise _problem(f"has a name that means nothing: {name!r}")
    return f"-c {name}=" + re.sub(r"([\\\s])", r"\\\1", value)


def _count(pool: Mapping[str, str], name: str, least: int) -> int | None:
    if name not in pool:
        return None
    text = pool[name]
    if not (text.isascii() and text.isdigit() and least <= int(text[:9])):
        raise _problem(f"{name} must be a whole number from {least} on")
    return int(text)


def _seconds(pool: Mapping[str, str], name: str, default: float) -> float:
    try:
        seconds = parse_duration(pool[name]) if name in pool else default
    except ValueError as error:
        raise _problem(f"{name} {error}") from None
    if seconds <= 0:
        raise _problem(f"{name} must be above 0")
    return seconds


def _connect_timeout(text: str) -> float | None:
    if not text.strip().isdigit() or not text.isascii():
        if text:
            raise _problem("connect_timeout must be a whole number of seconds")
        return None
    return float(text) or None


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem(message, field="connectionString")])
