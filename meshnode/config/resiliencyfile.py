"""The Resiliency resource as it is written, and its way into the model. May import this package only.

Durations are Dapr's: a number without a unit counts milliseconds. A policy name that a target uses may be
defined in any of the resources read together, so names are checked after the last file (`check_references`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, final

from attrs import frozen

from meshnode.config import resiliency as result
from meshnode.config._fields import line_field, yaml_field
from meshnode.config._manifest import ObjectMeta
from meshnode.config._problems import Report, did_you_mean
from meshnode.config._scalars import INVALID, Choice, Duration, Int, Number, Text, wrong_type
from meshnode.config._yaml import Node, Scalar
from meshnode.config.cel import compile_trip
from meshnode.config.source import Source

__all__ = ["BUILT_IN_RETRIES", "ResiliencyManifest", "check_references", "resiliency_from"]

BUILT_IN_RETRIES = (
    "DaprBuiltInServiceRetries",
    "DaprBuiltInActorRetries",
    "DaprBuiltInActorReminderRetries",
    "DaprBuiltInInitializationRetries",
    "DaprBuiltInActorNotFoundRetries",
)
_APP_CACHE = 100
_ACTOR_CACHE = 5000
_GRPC_CODES = (0, 16)
_HTTP_CODES = (100, 599)


def status_codes(text: str, low: int, high: int) -> frozenset[int]:
    """`1,2,5-7` as a set. Raises `ValueError` with a sentence."""
    codes: set[int] = set()
    for part in text.split(","):
        start, dash, end = (piece.strip() for piece in part.partition("-"))
        if not (start or dash):
            continue
        first, last = _code(start, low, high), _code(end if dash else start, low, high)
        if last < first:
            raise ValueError(f'"{part.strip()}" begins after its end')
        codes.update(range(first, last + 1))
    return frozenset(codes)


def _code(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and low <= int(text) <= high):
        raise ValueError(
            f'found "{text}", expected status codes from {low} to {high}, such as "{low},{low + 2}-{low + 4}"'
        )
    return int(text)


def _check_http_codes(text: str) -> object:
    return status_codes(text, *_HTTP_CODES)


def _check_grpc_codes(text: str) -> object:
    return status_codes(text, *_GRPC_CODES)


@frozen(eq=False, repr=False)
class _Name:
    """The name of a policy, with the line on which a target uses it."""

    text: str
    line: int


@final
class _NameShape:
    expected = "the name of a policy"

    def read(self, node: Node, where: str, report: Report) -> Any:
        return (
            _Name(node.text, node.line)
            if isinstance(node, Scalar)
            else wrong_type(node, self.expected, where, report)
        )

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


_PolicyName = Annotated[_Name | None, _NameShape()]
_Seconds = Annotated[float, Duration()]
_Share = Annotated[float | None, Number(0, 1, percent=True)]


@frozen(eq=False, repr=False)
class _Matching:
    http: Annotated[str, Text("HTTP status codes", _check_http_codes)] = yaml_field(
        "httpStatusCodes", 'HTTP status codes to retry, such as "429,500-599"; all if empty.', default=""
    )
    grpc: Annotated[str, Text("gRPC status codes", _check_grpc_codes)] = yaml_field(
        "gRPCStatusCodes", 'gRPC status codes to retry, such as "4,8,14"; all if empty.', default=""
    )


@frozen(eq=False, repr=False)
class _Retry:
    policy: Annotated[str, Choice(("constant", "exponential"))] = yaml_field(
        "policy", "How the wait between attempts develops.", default="constant"
    )
    duration: _Seconds = yaml_field("duration", "Wait between attempts (constant).", default=5.0)
    max_interval: _Seconds = yaml_field(
        "maxInterval", "Longest wait between attempts (exponential).", default=60.0
    )
    max_retries: Annotated[int, Int(-1, 2**31 - 1)] = yaml_field(
        "maxRetries", "Attempts after the first; -1 for ever.", default=-1
    )
    matching: _Matching = yaml_field("matching", "Which failures are retried.", default=_Matching())


@frozen(eq=False, repr=False)
class _Breaker:
    max_requests: Annotated[int, Int(0, 2**32 - 1)] = yaml_field(
        "maxRequests", "Requests let through half-open.", default=1
    )
    interval: _Seconds = yaml_field(
        "interval", "Period after which the counts are cleared while closed; 0 never.", default=0.0
    )
    timeout: _Seconds = yaml_field("timeout", "How long the breaker stays open.", default=60.0)
    trip: Annotated[str, Text("a CEL expression", compile_trip)] = yaml_field(
        "trip",
        "CEL over requests, totalSuccesses, totalFailures, consecutiveSuccesses, consecutiveFailures.",
        default="",
    )


@frozen(eq=False, repr=False)
class _Policies:
    timeouts: Mapping[str, _Seconds] = yaml_field("timeouts", "Timeouts by name.", default={})
    retries: Mapping[str, _Retry] = yaml_field("retries", "Retry policies by name.", default={})
    circuit_breakers: Mapping[str, _Breaker] = yaml_field(
        "circuitBreakers", "Circuit breakers by name.", default={}
    )


@frozen(eq=False, repr=False)
class _Direction:
    timeout: _PolicyName = yaml_field("timeout", "Name of a timeout.", default=None)
    retry: _PolicyName = yaml_field("retry", "Name of a retry policy.", default=None)
    circuit_breaker: _PolicyName = yaml_field("circuitBreaker", "Name of a circuit breaker.", default=None)
    retry_budget: _Share = yaml_field(
        "retryBudget", "Share of recent traffic that may be retries (meshnode's own).", default=None
    )


@frozen(eq=False, repr=False)
class _App(_Direction):
    cache_size: Annotated[int, Int(0)] = yaml_field(
        "circuitBreakerCacheSize", "Breakers kept per app.", default=0
    )


@frozen(eq=False, repr=False)
class _Actor:
    timeout: _PolicyName = yaml_field("timeout", "Name of a timeout.", default=None)
    retry: _PolicyName = yaml_field("retry", "Name of a retry policy.", default=None)
    circuit_breaker: _PolicyName = yaml_field("circuitBreaker", "Name of a circuit breaker.", default=None)
    scope: Annotated[str, Choice(("type", "id", "both"))] = yaml_field(
        "circuitBreakerScope", "Whether a breaker belongs to an actor type, an actor, or both.", default=""
    )
    cache_size: Annotated[int, Int(0)] = yaml_field(
        "circuitBreakerCacheSize", "Breakers kept per actor type.", default=0
    )
    line: int = line_field()


@frozen(eq=False, repr=False)
class _Component:
    inbound: _Direction = yaml_field(
        "inbound", "Policies for calls from the component.", default=_Direction()
    )
    outbound: _Direction = yaml_field(
        "outbound", "Policies for calls to the component.", default=_Direction()
    )


@frozen(eq=False, repr=False)
class _Targets:
    apps: Mapping[str, _App] = yaml_field("apps", "Applications by app id.", default={})
    actors: Mapping[str, _Actor] = yaml_field("actors", "Actors by type.", default={})
    components: Mapping[str, _Component] = yaml_field("components", "Components by name.", default={})


@frozen(eq=False, repr=False)
class _Spec:
    policies: _Policies = yaml_field("policies", "The policies, by name.", default=_Policies())
    targets: _Targets = yaml_field("targets", "What the policies apply to.", default=_Targets())


@frozen(eq=False, repr=False)
class ResiliencyManifest:
    api_version: str = yaml_field("apiVersion", "Always dapr.io/v1alpha1.")
    kind: str = yaml_field("kind", "Always Resiliency.")
    metadata: ObjectMeta = yaml_field("metadata", "Name of the resource.")
    spec: _Spec = yaml_field("spec", "Policies and targets.")
    scopes: tuple[str, ...] = yaml_field(
        "scopes", "App ids the resource applies to; all if empty.", default=()
    )
    line: int = line_field()


def resiliency_from(manifest: ResiliencyManifest, report: Report) -> result.Resiliency:
    policies, targets = manifest.spec.policies, manifest.spec.targets
    sound = True
    for name, actor in targets.actors.items():
        if actor.circuit_breaker is not None and not actor.scope:
            where = f"spec.targets.actors.{name}.circuitBreakerScope"
            report.problem(
                actor.line, where, "an actor's circuit breaker needs a scope", "allowed: type, id, both"
            )
            sound = False
    if not sound:
        return INVALID  # type: ignore[no-any-return]
    return result.Resiliency(
        name=manifest.metadata.name,
        namespace=manifest.metadata.namespace,
        scopes=manifest.scopes,
        timeouts=policies.timeouts,
        retries={name: _retry(one) for name, one in policies.retries.items()},
        circuit_breakers={name: _breaker(one) for name, one in policies.circuit_breakers.items()},
        apps={
            name: result.AppTarget(_names(one), one.cache_size or _APP_CACHE)
            for name, one in targets.apps.items()
        },
        actors={
            name: result.ActorTarget(_names(one), one.scope, one.cache_size or _ACTOR_CACHE)
            for name, one in targets.actors.items()
        },
        components={
            name: result.ComponentTarget(_names(one.inbound), _names(one.outbound))
            for name, one in targets.components.items()
        },
        retry_budgets=dict(_budgets(targets)),
        source=Source(report.file, manifest.line),
    )


def _retry(one: _Retry) -> result.RetryPolicy:
    grpc = status_codes(one.matching.grpc, *_GRPC_CODES) if one.matching.grpc else None
    matching = result.RetryMatching(grpc, one.matching.http)
    return result.RetryPolicy(
        result.Backoff(one.policy), one.duration, one.max_interval, one.max_retries, matching
    )


def _breaker(one: _Breaker) -> result.BreakerPolicy:
    # Zero means "the default" to Dapr's breaker, for the number of requests and for the timeout.
    return result.BreakerPolicy(one.max_requests or 1, one.interval, one.timeout or 60.0, one.trip)


def _names(one: _Direction | _Actor) -> result.PolicyNames:
    names = (one.timeout, one.retry, one.circuit_breaker)
    return result.PolicyNames(*("" if name is None else name.text for name in names))


def _budgets(targets: _Targets) -> Iterator[tuple[str, float]]:
    for name, app in targets.apps.items():
        if app.retry_budget is not None:
            yield name, app.retry_budget
    for name, component in targets.components.items():
        if component.outbound.retry_budget is not None:
            yield name, component.outbound.retry_budget


def check_references(manifests: Sequence[tuple[str, ResiliencyManifest]], report: Report) -> None:
    """Every policy that a target names must exist in one of the (file, manifest) pairs, or be built in."""
    policies = [manifest.spec.policies for _, manifest in manifests]
    known = {
        "timeout": [name for one in policies for name in one.timeouts],
        "retry": [*(name for one in policies for name in one.retries), *BUILT_IN_RETRIES],
        "circuitBreaker": [name for one in policies for name in one.circuit_breakers],
    }
    for report.file, manifest in manifests:
        for where, sort, name in _references(manifest.spec.targets):
            if name.text and name.text not in known[sort]:
                message = f'no {_SORTS[sort]} "{name.text}" is defined'
                report.problem(
                    name.line, f"spec.targets.{where}.{sort}", message, did_you_mean(name.text, known[sort])
                )


_SORTS = {"timeout": "timeout", "retry": "retry policy", "circuitBreaker": "circuit breaker"}


def _references(targets: _Targets) -> Iterator[tuple[str, str, _Name]]:
    places: list[tuple[str, _Direction | _Actor]] = []
    places += ((f"apps.{name}", app) for name, app in targets.apps.items())
    places += ((f"actors.{name}", actor) for name, actor in targets.actors.items())
    for name, component in targets.components.items():
        places += [
            (f"components.{name}.inbound", component.inbound),
            (f"components.{name}.outbound", component.outbound),
        ]
    for where, one in places:
        named: Iterable[tuple[str, _Name | None]] = (
            ("timeout", one.timeout),
            ("retry", one.retry),
            ("circuitBreaker", one.circuit_breaker),
        )
        yield from ((where, sort, name) for sort, name in named if name is not None)
