"""A target's policies in words, with the place each comes from. Pure."""

from __future__ import annotations

from meshnode.config.backoff import Backoff
from meshnode.errors import InvalidArgument
from meshnode.resiliency._goformat import go_duration
from meshnode.resiliency.backoff import BackoffSettings
from meshnode.resiliency.breaker import BreakerSettings
from meshnode.resiliency.rules import Direction, Rule, actor_rule, app_rule, built_in_rule, component_rule
from meshnode.resiliency.tables import BUILT_IN_SERVICE, RetryRule, Tables

__all__ = ["explain", "ranges", "rule_of"]


def explain(tables: Tables, target: str, kind: str = "") -> list[str]:
    """Lines for `app/ID`, `component/NAME[/inbound|/outbound]` and `actor/TYPE`.

    `kind` is the component's (`Statestore`…), where that matters for defaults by name pattern.
    """
    sort, name, direction = _parsed(target)
    titles = {"app": f"app {name}", "actor": f"actor type {name}"}
    lines = [
        titles.get(sort, f"component {name}, {direction}"),
        *_rule_lines(rule_of(tables, target, kind)),
    ]
    if sort == "app" and name not in tables.apps:
        built_in = built_in_rule(tables, BUILT_IN_SERVICE)
        lines.append(_line("connecting", _retry_words(built_in.retry), built_in, "retry"))
    if name in tables.budgets:
        lines.append(f"  retry budget: {tables.budgets[name]:.0%} of recent traffic")
    return lines


def rule_of(tables: Tables, target: str, kind: str = "") -> Rule:
    """The rule behind the lines. Raises `InvalidArgument`."""
    sort, name, direction = _parsed(target)
    if sort == "app":
        return app_rule(tables, name)
    return actor_rule(tables, name) if sort == "actor" else component_rule(tables, name, kind, direction)


def _parsed(target: str) -> tuple[str, str, Direction]:
    sort, _, rest = target.partition("/")
    name, _, way = rest.partition("/")
    if not name or sort not in ("app", "component", "actor"):
        raise InvalidArgument(
            f"target {target!r} is not app/ID, component/NAME[/inbound|/outbound] or actor/TYPE"
        )
    if sort == "component" and way not in ("", "outbound", "inbound"):
        raise InvalidArgument(f"direction {way!r} is not inbound or outbound")
    return sort, name, "inbound" if way == "inbound" else "outbound"


def _rule_lines(rule: Rule) -> list[str]:
    timeout = f"{rule.timeout_name}, {go_duration(rule.timeout)} per attempt" if rule.timeout else "none"
    return [
        _line("timeout", timeout, rule, "timeout"),
        _line("retry", _retry_words(rule.retry), rule, "retry"),
        _line("circuit breaker", _breaker_words(rule.breaker), rule, "breaker"),
    ]


def _line(label: str, words: str, rule: Rule, sort: str) -> str:
    origin = rule.origins.get(sort)
    return f"  {label}: {words} ({origin})" if origin else f"  {label}: {words}"


def _retry_words(retry: RetryRule | None) -> str:
    if retry is None:
        return "none"
    codes = "" if retry.codes is None else f", on gRPC codes {ranges(retry.codes)} only"
    return f"{retry.name}, {_wait_words(retry.backoff)}, {_count_words(retry.backoff)}{codes}"


def _wait_words(backoff: BackoffSettings) -> str:
    if backoff.kind is Backoff.CONSTANT:
        return f"every {go_duration(backoff.duration)}"
    spread = f"{backoff.randomization_factor:.0%}"
    return (
        f"after {go_duration(backoff.initial_interval)}, every wait {backoff.multiplier:g} times the last "
        f"up to {go_duration(backoff.max_interval)}, spread by {spread}"
    )


def _count_words(backoff: BackoffSettings) -> str:
    if backoff.unlimited and not backoff.max_elapsed:
        return "without limit"
    limits = []
    if not backoff.unlimited:
        limits.append(f"{backoff.max_retries + 1} attempts at most")
    if backoff.kind is Backoff.EXPONENTIAL and backoff.max_elapsed:
        limits.append(f"for {go_duration(backoff.max_elapsed)} at most")
    return ", ".join(limits) or "without limit"


def _breaker_words(breaker: BreakerSettings | None) -> str:
    if breaker is None:
        return "none"
    successes = "success" if breaker.max_requests == 1 else "successes"
    counts = f", counts cleared every {go_duration(breaker.interval)}" if breaker.interval else ""
    return (
        f"{breaker.template}, opens on {breaker.trip_text} for {go_duration(breaker.timeout)}, "
        f"closes after {breaker.max_requests} {successes} when half-open{counts}"
    )


def ranges(codes: frozenset[int]) -> str:
    """`1,2,5-7` again."""
    parts: list[list[int]] = []
    for code in sorted(codes):
        if parts and code == parts[-1][1] + 1:
            parts[-1][1] = code
        else:
            parts.append([code, code])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in parts)
