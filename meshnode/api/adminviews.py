"""Wire messages of the admin API from the values that resiliency and the live requests keep. Pure."""

from __future__ import annotations

from grpclib.const import Status

from meshnode.blocks.call import Call
from meshnode.errors import InvalidArgument
from meshnode.resiliency import Attempt, BreakerSnapshot, Policies, Rule, State
from meshnode.resiliency.explain import ranges
from meshnode.wire.meshnode.admin import v1 as admin

__all__ = ["breaker_view", "explanation", "live_request"]

_STATES = {
    State.CLOSED: admin.BreakerState.CLOSED,
    State.HALF_OPEN: admin.BreakerState.HALF_OPEN,
    State.OPEN: admin.BreakerState.OPEN,
}
_KINDS = {
    admin.ExplainRequestKind.APP: "app",
    admin.ExplainRequestKind.COMPONENT: "component",
    admin.ExplainRequestKind.ACTOR: "actor",
}


def live_request(call: Call, now: float) -> admin.LiveRequest:
    """A request in progress; times as seconds before or after `now` (the trio clock)."""
    view = call.view
    attempts = [_attempt(one, now) for one in view.attempts] if view is not None else []
    return admin.LiveRequest(
        id=call.id,
        method=call.method,
        peer=call.peer,
        started_ago=now - call.started,
        deadline_in=call.ends - now if call.ends is not None else None,
        target=view.target if view is not None else call.target,
        attempts=attempts,
        scopes=_scopes(call),
    )


def _scopes(call: Call) -> list[str]:
    """The scopes the request is in at this moment, outermost first."""
    scopes = ["deadline"] if call.deadline is not None else []
    policy, view = call.policy, call.view
    if policy is None or view is None:
        return scopes
    waiting = view.waiting_until is not None
    if policy.retry is not None:
        scopes.append("retry (waiting)" if waiting else "retry")
    if policy.breaker is not None and not waiting:
        scopes.append("breaker")
    if policy.timeout and not waiting:
        scopes.append("timeout")
    return scopes


def _attempt(attempt: Attempt, now: float) -> admin.Attempt:
    if attempt.ended is None:
        state = "running"
    elif attempt.refused:
        state = "refused"
    elif attempt.code is Status.OK:
        state = "ok"
    elif attempt.code is Status.DEADLINE_EXCEEDED:
        state = "timed out"
    elif attempt.code is Status.CANCELLED:
        state = "cancelled"
    else:
        state = "failed"
    return admin.Attempt(
        number=attempt.number,
        started_ago=now - attempt.started,
        state=state,
        code=attempt.code.value if attempt.code is not None else None,
        message=attempt.message,
        waited=attempt.waited,
    )


def breaker_view(snapshot: BreakerSnapshot) -> admin.Breaker:
    counts = snapshot.counts
    return admin.Breaker(
        name=snapshot.name,
        target=snapshot.target,
        state=_STATES[snapshot.state],
        counts=admin.BreakerCounts(
            requests=counts["requests"],
            total_successes=counts["totalSuccesses"],
            total_failures=counts["totalFailures"],
            consecutive_successes=counts["consecutiveSuccesses"],
            consecutive_failures=counts["consecutiveFailures"],
        ),
        opens_in=snapshot.opens_in if snapshot.state is State.OPEN else None,
    )


def explanation(policies: Policies, request: admin.ExplainRequest) -> admin.ExplainResponse:
    """The policy of a target in words. Raises `InvalidArgument` for a target of no kind."""
    kind = _KINDS.get(request.kind)
    if kind is None:
        raise InvalidArgument("explain needs a kind: app, component or actor")
    target = f"{kind}/{request.name}"
    if kind == "component":
        target += f"/{request.direction or 'outbound'}"
    sort = "Statestore" if kind == "component" else ""
    return admin.ExplainResponse(
        lines=policies.explain(target, kind=sort), policy=_policy_view(policies.rule(target, kind=sort))
    )


def _policy_view(rule: Rule) -> admin.PolicyView:
    view = admin.PolicyView(timeout=rule.timeout or None, sources=dict(rule.origins))
    if rule.retry is not None:
        backoff = rule.retry.backoff
        view.retry = admin.RetryView(
            name=rule.retry.name,
            policy=backoff.kind.value,
            duration=backoff.duration,
            max_interval=backoff.max_interval,
            max_retries=backoff.max_retries,
            matching="" if rule.retry.codes is None else ranges(rule.retry.codes),
        )
    if rule.breaker is not None:
        view.breaker = admin.BreakerView(
            name=rule.breaker.template,
            max_requests=rule.breaker.max_requests,
            interval=rule.breaker.interval,
            timeout=rule.breaker.timeout,
            trip=rule.breaker.trip_text,
        )
    return view
