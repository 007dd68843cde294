"""The Resiliency resource: defaults as Dapr's, and each mistake with its place and a way out."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config.loader import load_text
from meshnode.config.resiliency import (
    Backoff,
    BreakerPolicy,
    PolicyNames,
    Resiliency,
    RetryMatching,
    RetryPolicy,
)
from meshnode.config.resiliencyfile import status_codes
from meshnode.errors import ConfigError


def document(spec: str, name: str = "policies", more: str = "") -> str:
    head = f"apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: {name}}}\n{more}spec:\n"
    return head + indent(dedent(spec), "  ")


def load(spec: str) -> Resiliency:
    (resource,) = load_text(document(spec), "r.yaml").resiliencies
    return resource


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "r.yaml")
    return [str(problem) for problem in caught.value.problems]


WHOLE = """\
policies:
  timeouts:
    general: 5s
    fast: 250
  retries:
    empty:
    forever: {policy: constant, duration: 5s, maxRetries: -1}
    important:
      policy: Exponential
      maxInterval: 15s
      maxRetries: 10
      matching:
        httpStatusCodes: 429,500-599
        gRPCStatusCodes: 1,2,5-7, 14
  circuitBreakers:
    empty: {}
    simpleCB: {maxRequests: 1, interval: 8s, timeout: 5s, trip: consecutiveFailures >= 5}
    zero: {maxRequests: 0, timeout: 0s}
targets:
  apps:
    appB:
      timeout: general
      retry: important
      circuitBreaker: simpleCB
      circuitBreakerCacheSize: 7
      retryBudget: 20%
    appC:
  actors:
    MyActor: {timeout: general, retry: important, circuitBreaker: simpleCB, circuitBreakerScope: both}
  components:
    statestore:
      outbound: {timeout: general, retry: forever, circuitBreaker: simpleCB, retryBudget: 0.1}
      inbound: {retry: DaprBuiltInServiceRetries}
"""


def test_the_whole_of_it() -> None:
    resource = load(WHOLE)
    assert resource.timeouts == {"general": 5.0, "fast": 0.25}
    assert resource.retries == {
        "empty": RetryPolicy(Backoff.CONSTANT, 5.0, 60.0, -1, RetryMatching()),
        "forever": RetryPolicy(Backoff.CONSTANT, 5.0, 60.0, -1),
        "important": RetryPolicy(
            Backoff.EXPONENTIAL, 5.0, 15.0, 10, RetryMatching(frozenset({1, 2, 5, 6, 7, 14}), "429,500-599")
        ),
    }
    assert resource.circuit_breakers == {
        "empty": BreakerPolicy(1, 0.0, 60.0, ""),
        "simpleCB": BreakerPolicy(1, 8.0, 5.0, "consecutiveFailures >= 5"),
        "zero": BreakerPolicy(1, 0.0, 60.0, ""),
    }
    names = PolicyNames("general", "important", "simpleCB")
    assert (resource.apps["appB"].policies, resource.apps["appB"].circuit_breaker_cache_size) == (names, 7)
    assert (resource.apps["appC"].policies, resource.apps["appC"].circuit_breaker_cache_size) == (
        PolicyNames(),
        100,
    )
    actor = resource.actors["MyActor"]
    assert (actor.policies, actor.circuit_breaker_scope, actor.circuit_breaker_cache_size) == (
        names,
        "both",
        5000,
    )
    target = resource.components["statestore"]
    assert target.outbound == PolicyNames("general", "forever", "simpleCB")
    assert target.inbound == PolicyNames(retry="DaprBuiltInServiceRetries")
    assert resource.retry_budgets == {"appB": 0.2, "statestore": 0.1}
    assert (resource.source.file, resource.source.line) == ("r.yaml", 1)


def test_scopes_and_namespace() -> None:
    text = document("policies: {}\ntargets: {}\n").replace("{name: policies}", "{name: a, namespace: b}")
    (resource,) = load_text(text + "scopes: [app1, app2]\n").resiliencies
    assert (resource.name, resource.namespace, resource.scopes) == ("a", "b", ("app1", "app2"))


RETRY = "policies:\n  retries:\n    r: {%s}\n"
BREAKER = "policies:\n  circuitBreakers:\n    b: {%s}\n"


@pytest.mark.parametrize(
    ("spec", "where", "said"),
    [
        (RETRY % "polcy: constant", "spec.policies.retries.r.polcy", 'unknown field (did you mean "policy"?'),
        (RETRY % "policy: exponental", "spec.policies.retries.r.policy", 'did you mean "exponential"?'),
        (RETRY % "policy: linear", "spec.policies.retries.r.policy", "allowed: constant, exponential"),
        (RETRY % "duration: fast", "spec.policies.retries.r.duration", '"fast" is not a duration'),
        (RETRY % "duration: -1s", "spec.policies.retries.r.duration", '"-1s" is negative'),
        (RETRY % "maxInterval: 5 s", "spec.policies.retries.r.maxInterval", '"5 s" is not a duration'),
        (RETRY % "maxRetries: '3'", "spec.policies.retries.r.maxRetries", "remove the quotes"),
        (RETRY % "maxRetries: -2", "spec.policies.retries.r.maxRetries", "from -1 to"),
        (RETRY % "maxRetries: 1.5", "spec.policies.retries.r.maxRetries", "expected a whole number"),
        (
            RETRY % "matching: {gRPCStatusCodes: '1,17'}",
            "spec.policies.retries.r.matching.gRPCStatusCodes",
            'found "17", expected status codes from 0 to 16',
        ),
        (
            RETRY % "matching: {grpcstatuscodes: 5-2}",
            "spec.policies.retries.r.matching.gRPCStatusCodes",
            '"5-2" begins after its end',
        ),
        (
            RETRY % "matching: {httpStatusCodes: 5xx}",
            "spec.policies.retries.r.matching.httpStatusCodes",
            'found "5xx", expected status codes from 100 to 599',
        ),
        (
            RETRY % "matching: {codes: 1}",
            "spec.policies.retries.r.matching.codes",
            "allowed: httpStatusCodes, gRPC",
        ),
        (BREAKER % "maxRequests: -1", "spec.policies.circuitBreakers.b.maxRequests", 'found "-1"'),
        (BREAKER % "timeout: soon", "spec.policies.circuitBreakers.b.timeout", '"soon" is not a duration'),
        (BREAKER % "trip: consecutiveFailures >", "spec.policies.circuitBreakers.b.trip", "column 22"),
        (
            BREAKER % "trip: consecutiveFailure > 5",
            "spec.policies.circuitBreakers.b.trip",
            'unknown name consecutiveFailure; did you mean "consecutiveFailures"?',
        ),
        (BREAKER % "trip: requests", "spec.policies.circuitBreakers.b.trip", "gives 1, not true or false"),
        ("policies:\n  timeouts: {a: [1]}", "spec.policies.timeouts.a", "found a list, expected a duration"),
        ("policies:\n  timeouts: {a: }", "spec.policies.timeouts.a", "found nothing, expected a duration"),
        ("policies:\n  retry: {}", "spec.policies.retry", 'unknown field (did you mean "retries"?'),
        ("targets:\n  component: {}", "spec.targets.component", 'unknown field (did you mean "components"?'),
        ("targets:\n  apps: {a: {inbound: {}}}", "spec.targets.apps.a.inbound", "unknown field"),
        (
            "targets:\n  components: {a: {retry: x}}",
            "spec.targets.components.a.retry",
            "allowed: inbound, outbound",
        ),
        (
            "targets:\n  apps: {a: {retryBudget: 2}}",
            "spec.targets.apps.a.retryBudget",
            "a number from 0 to 1",
        ),
        ("targets:\n  apps: {a: {retry: [x]}}", "spec.targets.apps.a.retry", "expected the name of a policy"),
        (
            BREAKER % "" + "targets:\n  actors: {A: {circuitBreaker: b}}",
            "spec.targets.actors.A.circuitBreakerScope",
            "an actor's circuit breaker needs a scope (allowed: type, id, both)",
        ),
        (
            "targets:\n  actors: {A: {circuitBreakerScope: actor}}",
            "spec.targets.actors.A.circuitBreakerScope",
            "allowed",
        ),
    ],
)
def test_one_mistake(spec: str, where: str, said: str) -> None:
    (problem,) = complaints(document(spec))
    place, _, message = problem.partition(": ")
    assert place.startswith("r.yaml:")
    assert message.startswith(f"{where}: ")
    assert said in message


def test_names_of_policies_that_nobody_defines() -> None:
    policies = document("policies:\n  timeouts: {general: 1s}\n  retries: {important: {}}\n")
    targets = document(
        """\
        targets:
          apps:
            a: {timeout: genral}
          components:
            c:
              outbound:
                retry: important
                circuitBreaker: nope
        """,
        "targets",
    )
    assert complaints(f"{policies}---\n{targets}") == [
        'r.yaml:15: spec.targets.apps.a.timeout: no timeout "genral" is defined '
        '(did you mean "general"? allowed: general)',
        'r.yaml:20: spec.targets.components.c.outbound.circuitBreaker: no circuit breaker "nope" is defined',
    ]


def test_a_broken_resource_does_not_make_its_policies_unknown_besides() -> None:
    broken = document("policies:\n  timeouts: {general: soon}\n")
    targets = document("targets:\n  apps:\n    a: {timeout: general}\n", "targets")
    assert len(complaints(f"{broken}---\n{targets}")) == 1


@given(st.sets(st.integers(0, 16), min_size=1), st.randoms(use_true_random=False))
def test_status_codes_in_any_notation(codes: set[int], random: object) -> None:
    """Runs of codes are written as ranges or one by one; the set stays the same."""
    parts: list[str] = []
    rest = sorted(codes)
    while rest:
        run = [code for i, code in enumerate(rest) if code == rest[0] + i]
        parts.append(f"{run[0]}-{run[-1]}" if random.random() < 0.5 else ",".join(map(str, run)))  # type: ignore[attr-defined]
        rest = rest[len(run) :]
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert status_codes(",".join(parts), 0, 16) == codes


@pytest.mark.parametrize("text", ["1-", "-1", "a", "1--2", "1-2-3", "0x1", "١", "1 2", "99999999999"])
def test_texts_that_are_no_status_codes(text: str) -> None:
    with pytest.raises(ValueError, match="expected status codes"):
        status_codes(text, 0, 16)
