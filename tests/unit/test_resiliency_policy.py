"""Which policies hold for which target, and how a node's requests share breakers."""

from __future__ import annotations

import logging

import pytest
from attrs import evolve

from meshnode.config.resiliency import (
    ActorTarget,
    AppTarget,
    Backoff,
    BreakerPolicy,
    ComponentTarget,
    PolicyNames,
    Resiliency,
    RetryMatching,
    RetryPolicy,
)
from meshnode.errors import CircuitOpen, ConfigError, InvalidArgument
from meshnode.resiliency import NO_POLICY, Policies, Policy, State


def build(*resources: Resiliency, app_id: str = "checkout", namespace: str = "") -> Policies:
    return Policies.build(resources, app_id, namespace)


def retries_of(policy: Policy) -> int | None:
    return policy.retry.backoff.max_retries if policy.retry else None


def trip(policy: Policy, failures: int = 6, now: float = 0.0) -> None:
    assert policy.breaker is not None
    for _ in range(failures):
        policy.breaker.failure(policy.breaker.admit(now), now)


QUICKSTART = Resiliency(
    "myresiliency",
    timeouts={"general": 5.0},
    retries={"retryForever": RetryPolicy(Backoff.CONSTANT, 5.0)},
    circuit_breakers={"simpleCB": BreakerPolicy(1, 0.0, 5.0)},
    apps={"order-processor": AppTarget(PolicyNames("general", "retryForever", "simpleCB"))},
    components={"statestore": ComponentTarget(outbound=PolicyNames("", "retryForever", "simpleCB"))},
    actors={"Cart": ActorTarget(PolicyNames("general", "retryForever", "simpleCB"), "type")},
)


# --- targets ---


def test_a_component_target_gives_what_it_names() -> None:
    policy = build(QUICKSTART).for_component("statestore", "Statestore")
    assert policy.name == "component[statestore] output"
    assert (policy.timeout, retries_of(policy)) == (0.0, -1)
    assert policy.breaker is not None
    assert policy.breaker.name == "simpleCB-statestore"


def test_what_nothing_names_has_the_shared_empty_policy() -> None:
    policies = build(QUICKSTART)
    assert policies.for_component("statestore", "Statestore", "inbound") is NO_POLICY
    assert policies.for_component("other", "Statestore") is NO_POLICY
    assert policies.for_app("other", "orders") is NO_POLICY
    assert policies.for_actor("Other", "1") is NO_POLICY
    assert policies.for_actor_turn("Other", "1") is NO_POLICY
    assert NO_POLICY.is_noop


def test_an_app_target_is_resolved_per_method_and_once() -> None:
    policies = build(QUICKSTART)
    orders, refunds = (
        policies.for_app("order-processor", "orders"),
        policies.for_app("order-processor", "refunds"),
    )
    assert orders is policies.for_app("order-processor", "orders")
    assert orders.name == "endpoint[order-processor, order-processor:orders]"
    assert orders.timeout == 5.0
    assert orders.breaker is not refunds.breaker
    assert orders.breaker is not None
    assert orders.breaker.name == "order-processor:orders"


def test_an_actors_turn_is_waited_for_without_a_timeout() -> None:
    policies = build(QUICKSTART)
    waiting, turn = policies.for_actor("Cart", "7"), policies.for_actor_turn("Cart", "7")
    assert (waiting.timeout, retries_of(waiting)) == (0.0, -1)
    assert (turn.timeout, turn.retry, turn.breaker) == (5.0, None, None)
    assert waiting.name == turn.name == "actor[Cart, 7]"


@pytest.mark.parametrize(("scope", "shared"), [("type", True), ("id", False), ("both", False)])
def test_an_actors_breaker_is_its_types_or_its_own(scope: str, shared: bool) -> None:
    target = ActorTarget(PolicyNames("", "", "cb"), scope)
    policies = build(Resiliency("r", circuit_breakers={"cb": BreakerPolicy()}, actors={"Cart": target}))
    one, two = policies.for_actor("Cart", "1").breaker, policies.for_actor("Cart", "2").breaker
    assert one is not None
    assert (one is two) is shared
    assert one.name == ("Cart" if shared else "Cart-1")


def test_both_directions_of_a_component_share_a_breaker_of_one_name() -> None:
    names, other = PolicyNames("", "", "cb"), PolicyNames("", "", "other")
    breakers = {"cb": BreakerPolicy(), "other": BreakerPolicy()}
    same = {"bus": ComponentTarget(names, names), "line": ComponentTarget(names, other)}
    policies = build(Resiliency("r", circuit_breakers=breakers, components=same))
    bus = [policies.for_component("bus", "Pubsub", way).breaker for way in ("inbound", "outbound")]
    line = [policies.for_component("line", "Pubsub", way).breaker for way in ("inbound", "outbound")]
    assert bus[0] is bus[1] is not None
    assert line[0] is not line[1]
    assert policies.for_component("bus", "Pubsub", "inbound").name == "component[bus] input"


# --- bounds ---


def test_the_longest_unused_endpoint_is_forgotten_with_its_breaker() -> None:
    target = AppTarget(PolicyNames("", "", "cb"), circuit_breaker_cache_size=2)
    policies = build(Resiliency("r", circuit_breakers={"cb": BreakerPolicy()}, apps={"a": target}))
    first, second = policies.for_app("a", "1"), policies.for_app("a", "2")
    assert policies.for_app("a", "1") is first
    policies.for_app("a", "3")
    assert policies.for_app("a", "1") is first
    assert policies.for_app("a", "2") is not second
    assert len(policies.breakers(0.0)) == 2


def test_names_from_callers_take_bounded_room() -> None:
    policies = build(Resiliency("r", circuit_breakers={"DefaultCircuitBreakerPolicy": BreakerPolicy()}))
    for number in range(1500):
        policies.for_app(f"app-{number}", "m")
    for number in range(500):
        policies.for_app("app-1499", f"m-{number}")
    assert len(policies.breakers(0.0)) == 999 + 100


# --- defaults by name pattern ---

LADDER = (
    "DefaultStatestoreComponentOutboundRetryPolicy",
    "DefaultComponentOutboundRetryPolicy",
    "DefaultComponentRetryPolicy",
    "DefaultRetryPolicy",
)


@pytest.mark.parametrize("step", range(len(LADDER)))
def test_the_most_specific_default_wins(step: int) -> None:
    named = {name: RetryPolicy(max_retries=index) for index, name in enumerate(LADDER) if index >= step}
    policy = build(Resiliency("r", retries=named)).for_component("store", "Statestore")
    assert policy.retry is not None
    assert policy.retry.name == LADDER[step]


@pytest.mark.parametrize(
    ("name", "hits"),
    [
        ("DefaultTimeoutPolicy", {"app", "actor", "state-out", "state-in", "bus-out"}),
        ("DefaultAppTimeoutPolicy", {"app"}),
        ("DefaultActorTimeoutPolicy", {"actor"}),
        ("DefaultComponentTimeoutPolicy", {"state-out", "state-in", "bus-out"}),
        ("DefaultComponentInboundTimeoutPolicy", {"state-in"}),
        ("DefaultComponentOutboundTimeoutPolicy", {"state-out", "bus-out"}),
        ("DefaultPubsubComponentOutboundTimeoutPolicy", {"bus-out"}),
        ("DefaultStatestoreComponentTimeoutPolicy", set()),
        ("DefaultAppOutboundTimeoutPolicy", set()),
    ],
)
def test_what_a_default_covers(name: str, hits: set[str]) -> None:
    policies = build(Resiliency("r", timeouts={name: 3.0}))
    found = {
        "app": policies.for_app("x", "m"),
        "actor": policies.for_actor_turn("T", "1"),
        "state-out": policies.for_component("s", "Statestore"),
        "state-in": policies.for_component("s", "Statestore", "inbound"),
        "bus-out": policies.for_component("b", "Pubsub"),
    }
    assert {target for target, policy in found.items() if policy.timeout == 3.0} == hits


def test_a_named_target_takes_no_defaults_besides() -> None:
    resource = Resiliency(
        "r",
        timeouts={"t": 1.0},
        retries={"DefaultRetryPolicy": RetryPolicy()},
        apps={"a": AppTarget(PolicyNames("t"))},
        components={"s": ComponentTarget(outbound=PolicyNames("t"))},
    )
    policies = build(resource)
    assert policies.for_app("a", "m").retry is None
    assert policies.for_component("s", "Statestore", "inbound") is NO_POLICY
    assert policies.for_app("b", "m").retry is not None


def test_default_breakers_are_per_endpoint_and_per_actor_type() -> None:
    policies = build(Resiliency("r", circuit_breakers={"DefaultCircuitBreakerPolicy": BreakerPolicy()}))
    names = [
        policy.breaker.name
        for policy in (
            policies.for_app("a", "m"),
            policies.for_actor("T", "1"),
            policies.for_component("s", "Statestore"),
        )
        if policy.breaker
    ]
    assert names == ["a:m", "T", "DefaultCircuitBreakerPolicy-s"]


# --- built-in retries ---


def test_connecting_is_retried_unless_the_app_is_a_target() -> None:
    policies = build(QUICKSTART)
    assert policies.for_connection("order-processor") is NO_POLICY
    other = policies.for_connection("other")
    assert other.name == "DaprBuiltInServiceRetries"
    assert other.retry is not None
    assert (other.retry.backoff.duration, other.retry.backoff.max_retries) == (1.0, 3)
    assert policies.for_connection("another") is other


def test_defaults_do_not_replace_the_built_in_retries() -> None:
    policies = build(Resiliency("r", retries={"DefaultRetryPolicy": RetryPolicy(max_retries=7)}))
    assert retries_of(policies.for_connection("a")) == 3


@pytest.mark.parametrize(("given", "effective"), [(5, 5), (1, 3), (0, 3), (-1, -1)])
def test_a_built_in_policy_can_be_overridden_but_not_weakened(given: int, effective: int) -> None:
    override = {"DaprBuiltInServiceRetries": RetryPolicy(max_retries=given, duration=0.1)}
    assert retries_of(build(Resiliency("r", retries=override)).for_connection("a")) == effective


def test_the_protected_policy_stays(caplog: pytest.LogCaptureFixture) -> None:
    override = {"DaprBuiltInActorNotFoundRetries": RetryPolicy(max_retries=50)}
    policy = build(Resiliency("r", retries=override)).built_in("DaprBuiltInActorNotFoundRetries")
    assert retries_of(policy) == 5
    assert "cannot be overridden" in caplog.text


# --- several resources ---


def test_later_resources_win_name_by_name() -> None:
    first = Resiliency(
        "a",
        timeouts={"t": 1.0, "u": 2.0},
        apps={"x": AppTarget(PolicyNames("t")), "y": AppTarget(PolicyNames("t"))},
    )
    second = Resiliency("b", timeouts={"t": 9.0}, apps={"y": AppTarget(PolicyNames("u"))})
    policies = build(first, second)
    assert policies.for_app("x", "m").timeout == 9.0
    assert policies.for_app("y", "m").timeout == 2.0


@pytest.mark.parametrize(
    ("resource", "app_id", "namespace", "applies"),
    [
        (Resiliency("r"), "checkout", "", True),
        (Resiliency("r", scopes=("checkout", "x")), "checkout", "", True),
        (Resiliency("r", scopes=("x",)), "checkout", "", False),
        (Resiliency("r", namespace="prod"), "checkout", "prod", True),
        (Resiliency("r", namespace="prod"), "checkout", "test", False),
        (Resiliency("r", namespace="prod"), "checkout", "", True),
        (Resiliency("r"), "checkout", "test", True),
    ],
)
def test_scopes_and_namespaces(resource: Resiliency, app_id: str, namespace: str, applies: bool) -> None:
    resource = evolve(resource, timeouts={"DefaultTimeoutPolicy": 1.0})
    policies = build(resource, app_id=app_id, namespace=namespace)
    assert policies.for_app("a", "m").is_noop is not applies


def test_every_unknown_name_is_reported_with_the_nearest_right_one() -> None:
    resource = Resiliency(
        "mine",
        retries={"retryForever": RetryPolicy()},
        apps={"a": AppTarget(PolicyNames("general", "retryforever"))},
        components={"s": ComponentTarget(inbound=PolicyNames(circuit_breaker="simpleCB"))},
        actors={"T": ActorTarget(PolicyNames(retry="retryForever"))},
    )
    with pytest.raises(ConfigError) as caught:
        build(resource)
    assert [str(problem) for problem in caught.value.problems] == [
        "Resiliency 'mine': spec.targets.apps.a.timeout: no policy 'general' under "
        "policies.timeouts (defined: none)",
        "Resiliency 'mine': spec.targets.apps.a.retry: no policy 'retryforever' under policies.retries "
        "(did you mean 'retryForever'?)",
        "Resiliency 'mine': spec.targets.components.s.inbound.circuitBreaker: no policy 'simpleCB' under "
        "policies.circuitBreakers (defined: none)",
    ]


@pytest.mark.parametrize("scope", ["", "types"])
def test_an_actors_breaker_needs_a_scope(scope: str) -> None:
    target = ActorTarget(PolicyNames("", "", "cb"), scope)
    with pytest.raises(ConfigError, match="circuitBreakerScope"):
        build(Resiliency("r", circuit_breakers={"cb": BreakerPolicy()}, actors={"T": target}))


def test_a_policy_may_stand_in_another_resource() -> None:
    targets = Resiliency("targets", apps={"a": AppTarget(PolicyNames("t"))})
    assert build(targets, Resiliency("policies", timeouts={"t": 4.0})).for_app("a", "m").timeout == 4.0


# --- breakers ---


def test_breakers_tell_their_state_in_daprs_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshnode.resiliency")
    policy = build(QUICKSTART).for_component("statestore", "Statestore")
    assert policy.breaker is not None
    trip(policy)
    policy.breaker.success(policy.breaker.admit(5.0), 5.0)
    assert caplog.messages == [
        'Circuit breaker "simpleCB-statestore" changed state from closed to open',
        'Circuit breaker "simpleCB-statestore" changed state from open to half-open',
        'Circuit breaker "simpleCB-statestore" changed state from half-open to closed',
    ]


def test_a_condition_of_ones_own_is_compiled() -> None:
    breaker = BreakerPolicy(trip="consecutiveFailures >= 2 || totalFailures > 100")
    resource = Resiliency(
        "r",
        circuit_breakers={"cb": breaker},
        components={"s": ComponentTarget(outbound=PolicyNames("", "", "cb"))},
    )
    policy = build(resource).for_component("s", "Statestore")
    trip(policy, 2)
    assert policy.breaker is not None
    with pytest.raises(CircuitOpen):
        policy.breaker.admit(0.0)


def test_a_condition_that_cannot_be_compiled_stops_the_start() -> None:
    with pytest.raises(ConfigError):
        build(Resiliency("r", circuit_breakers={"cb": BreakerPolicy(trip="consecutiveFailures >=")}))


def test_numbers_that_gobreaker_replaces_are_replaced() -> None:
    breaker = BreakerPolicy(max_requests=0, interval=-1.0, timeout=0.0)
    resource = Resiliency("r", circuit_breakers={"DefaultCircuitBreakerPolicy": breaker})
    policy = build(resource).for_component("s", "Statestore")
    assert policy.breaker is not None
    trip(policy)
    assert policy.breaker.opens_in(0.0) == 60.0
    policy.breaker.admit(60.0)
    with pytest.raises(CircuitOpen):
        policy.breaker.admit(60.0)


def test_the_list_of_breakers() -> None:
    policies = build(QUICKSTART)
    trip(policies.for_component("statestore", "Statestore"))
    policies.for_app("order-processor", "orders")
    policies.for_actor("Cart", "1")
    policies.for_actor("Cart", "2")
    found = {b.name: (b.target, b.state, b.opens_in) for b in policies.breakers(2.0)}
    assert found == {
        "simpleCB-statestore": ("component/statestore", State.OPEN, 3.0),
        "order-processor:orders": ("app/order-processor", State.CLOSED, 0.0),
        "Cart": ("actor/Cart", State.CLOSED, 0.0),
    }


# --- budgets ---


def test_a_budget_is_shared_by_all_endpoints_of_its_target() -> None:
    policies = build(evolve(QUICKSTART, retry_budgets={"order-processor": 0.2, "Cart": 0.5}))
    one, two = policies.for_app("order-processor", "1"), policies.for_app("order-processor", "2")
    assert one.budget is two.budget is not None
    assert policies.for_component("statestore", "Statestore").budget is None
    assert policies.for_actor("Cart", "1").budget is not one.budget


def test_an_app_and_a_component_of_one_name_have_a_budget_each() -> None:
    names = PolicyNames("", "retryForever")
    shop = evolve(
        QUICKSTART,
        apps={"shop": AppTarget(names)},
        components={"shop": ComponentTarget(names, names)},
        retry_budgets={"shop": 0.1},
    )
    policies = build(shop)
    app, component = policies.for_app("shop", "m"), policies.for_component("shop", "Pubsub")
    assert app.budget is not component.budget
    assert component.budget is policies.for_component("shop", "Pubsub", "inbound").budget is not None


# --- explain ---


def test_explain_says_what_holds_and_where_it_comes_from() -> None:
    policies = build(QUICKSTART, Resiliency("defaults", timeouts={"DefaultAppTimeoutPolicy": 90.0}))
    assert policies.explain("component/statestore", kind="Statestore") == [
        "component statestore, outbound",
        "  timeout: none",
        "  retry: retryForever, every 5s, without limit "
        "(Resiliency myresiliency: targets.components.statestore.outbound)",
        "  circuit breaker: simpleCB, opens on consecutiveFailures > 5 for 5s, "
        "closes after 1 success when half-open "
        "(Resiliency myresiliency: targets.components.statestore.outbound)",
    ]
    assert policies.explain("app/other") == [
        "app other",
        "  timeout: DefaultAppTimeoutPolicy, 1m30s per attempt (Resiliency defaults, default by name)",
        "  retry: none",
        "  circuit breaker: none",
        "  connecting: DaprBuiltInServiceRetries, every 1s, 4 attempts at most (built in)",
    ]
    assert policies.explain("component/x/inbound") == [
        "component x, inbound",
        "  timeout: none",
        "  retry: none",
        "  circuit breaker: none",
    ]


def test_explain_spells_out_exponential_and_matching() -> None:
    retry = RetryPolicy(
        Backoff.EXPONENTIAL,
        max_interval=15.0,
        max_retries=9,
        matching=RetryMatching(frozenset({14, 1, 2, 3})),
    )
    resource = Resiliency("r", retries={"slow": retry}, actors={"T": ActorTarget(PolicyNames("", "slow"))})
    assert build(resource).explain("actor/T")[2] == (
        "  retry: slow, after 500ms, every wait 1.5 times the last up to 15s, spread by 50%, "
        "10 attempts at most, "
        "for 15m0s at most, on gRPC codes 1-3,14 only (Resiliency r: targets.actors.T)"
    )


@pytest.mark.parametrize("target", ["", "app", "app/", "thing/x", "component/x/sideways"])
def test_explain_refuses_what_is_no_target(target: str) -> None:
    with pytest.raises(InvalidArgument):
        build().explain(target)
