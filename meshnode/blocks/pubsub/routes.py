"""Where an event goes within the application: a subscription's rules in CEL over `event`, tried in order,
then its default path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from meshnode.blocks.pubsub.events import Event
from meshnode.config.cel import Program, compile_program
from meshnode.config.subscription import Rule

__all__ = ["Routes"]


@final
class Routes:
    """Compiled once per subscription. Raises `ValueError` for a rule that is no CEL expression."""

    __slots__ = ("_rules", "default", "rules")

    def __init__(self, rules: Sequence[Rule] = (), default: str | None = "") -> None:
        self.rules = tuple(rules)
        self.default = default
        """None: what no rule matches is not processed."""
        self._rules: list[tuple[Program | None, str]] = [
            (compile_program(rule.match.strip()) if rule.match.strip() else None, rule.path) for rule in rules
        ]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Routes):
            return NotImplemented
        return self.rules == other.rules and self.default == other.default

    __hash__ = None  # type: ignore[assignment]

    def path_of(self, event: Event) -> str | None:
        """The path of the first rule that holds, else the default. Raises `ValueError` where a rule cannot be
        decided.

        As in Dapr a rule that looks at an attribute the event lacks has no answer, which is an error.
        """
        if self._rules:
            values = {"event": event.for_rules()}
            for program, path in self._rules:
                if program is None or _holds(program, values):
                    return path
        return self.default


def _holds(program: Program, values: Mapping[str, object]) -> bool:
    result = program.evaluate(values)
    if not isinstance(result, bool):
        raise ValueError(  # noqa: TRY004 - the rule's text is wrong, not a type
            f"the result of match expression {program.text} was not a boolean"
        )
    return result
