"""Who may call what: the Configuration's `accessControl` (other applications on this one) and `api` (the
application on its node).

Other applications are told apart by their certificates. There are none before encryption between nodes is
built, so every caller is a stranger and the default action decides, as in a daprd without mTLS; rules for
single callers match nobody. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, final

from attrs import frozen

from meshnode.config._problems import did_you_mean
from meshnode.config.source import Source
from meshnode.errors import ConfigError, ErrorInfoDetail, MeshError, NotImplementedHere, Problem, Status

if TYPE_CHECKING:
    from meshnode.config.sections import API, AccessControl, APIRule

__all__ = ["AccessDenied", "AccessPolicy", "ApiRules"]

_RUNTIME = "/dapr.proto.runtime.v1.Dapr/"
_STAGE = re.compile(r"(?P<stem>.+?)(?P<stage>(?:Alpha|Beta)[0-9])?")

# Dapr's names of the APIs and the methods of each, without the stage (`Alpha1`) that is their version.
_METHODS: Mapping[str, str] = {
    "invoke": "InvokeService",
    "state": "GetState GetBulkState SaveState DeleteState DeleteBulkState ExecuteStateTransaction QueryState",
    "publish": "PublishEvent BulkPublishEvent",
    "subscribe": "SubscribeTopicEvents",
    "bindings": "InvokeBinding",
    "secrets": "GetSecret GetBulkSecret",
    "actors": (
        "RegisterActorTimer UnregisterActorTimer RegisterActorReminder UnregisterActorReminder"
        " UnregisterActorRemindersByType GetActorReminder ListActorReminders GetActorTimer ListActorTimers"
        " GetActorState ExecuteActorStateTransaction InvokeActor SubscribeActorEvents"
    ),
    "metadata": "GetMetadata SetMetadata",
    "configuration": "GetConfiguration SubscribeConfiguration UnsubscribeConfiguration",
    "lock": "TryLock",
    "unlock": "Unlock",
    "subtlecrypto": (
        "SubtleGetKey SubtleEncrypt SubtleDecrypt SubtleSign SubtleVerify SubtleWrapKey SubtleUnwrapKey"
    ),
    "crypto": "Encrypt Decrypt",
    "workflows": (
        "StartWorkflow GetWorkflow TerminateWorkflow RaiseEventWorkflow PurgeWorkflow PauseWorkflow"
        " ResumeWorkflow"
    ),
    "jobs": "ScheduleJob GetJob DeleteJob DeleteJobsByPrefix ListJobs",
    "shutdown": "Shutdown",
    "conversation": "Converse",
}
_API_OF = {method: api for api, methods in _METHODS.items() for method in methods.split()}


@final
class AccessDenied(MeshError):
    """The called side's access policy has no place for the caller."""

    status = Status.PERMISSION_DENIED


@final
@frozen
class AccessPolicy:
    """The called side's rules, as far as they can hold for callers without identity."""

    default_allows: bool = True

    @classmethod
    def of(cls, spec: AccessControl | None) -> AccessPolicy:
        """Without a default action naming callers means to deny all others, as in Dapr."""
        if spec is None or not (spec.default_action or spec.trust_domain or spec.policies):
            return cls()
        return cls((spec.default_action or ("deny" if spec.policies else "allow")) == "allow")

    def check(self, operation: str, verb: str = "NONE") -> None:
        """Raises `AccessDenied`, in Dapr's words: the caller's app id is not known, so it stays empty."""
        if not self.default_allows:
            words = f"access control policy has denied access to appid:  operation: {operation} verb: {verb}"
            raise AccessDenied(words)


@final
class ApiRules:
    """Which methods of the node's API the application may use. Rules for HTTP are not looked at."""

    def __init__(self, spec: API | None = None, source: Source = Source()) -> None:  # noqa: B008
        """Raises `ConfigError` for a rule about an API that does not exist: it would protect nothing."""
        allowed, denied = (spec.allowed, spec.denied) if spec is not None else ((), ())
        rules = [rule for rule in (*allowed, *denied) if rule.protocol != "http"]
        known = sorted(_METHODS)
        unknown = [rule.name for rule in rules if rule.name not in _METHODS]
        if unknown:
            raise ConfigError(
                [
                    Problem(
                        f'there is no API "{name}"',
                        source.file,
                        source.line,
                        "spec.api",
                        did_you_mean(name, known),
                    )
                    for name in unknown
                ]
            )
        self._allowed = _names(allowed)
        self._denied = _names(denied)

    def __bool__(self) -> bool:
        return bool(self._allowed or self._denied)

    def check(self, path: str) -> None:
        """Raises `NotImplementedHere`, which is how Dapr answers. Proxied methods are not the API's."""
        if not path.startswith(_RUNTIME):
            return
        name = _api_name(path.removeprefix(_RUNTIME))
        if name in self._denied or (self._allowed and name not in self._allowed):
            metadata = {"http.code": "501", "http.error_message": "requested endpoint is not available"}
            raise NotImplementedHere("Not Implemented", ErrorInfoDetail("Not Implemented", metadata))


def _names(rules: Iterable[APIRule]) -> frozenset[str]:
    return frozenset(f"{rule.name}.{_major(rule.version)}" for rule in rules if rule.protocol != "http")


def _major(version: str) -> str:
    """`v1.0` is how the HTTP API's version is written; the two mean the same here."""
    return version.removesuffix(".0") or "v1"


def _api_name(method: str) -> str:
    """`QueryStateAlpha1` -> `state.v1alpha1`; a method of no API is one by itself."""
    match = _STAGE.fullmatch(method)
    assert match is not None, "a method has a name"
    return f"{_API_OF.get(match['stem'], match['stem'])}.v1{(match['stage'] or '').lower()}"
