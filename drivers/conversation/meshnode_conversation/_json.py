"""Reading answers that may be anything: what is missing or of another kind is as if it were empty."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["arguments_object", "items", "number", "record", "text"]


def record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def arguments_object(arguments: str) -> Any:
    """A tool call's arguments for APIs that take them as JSON, not as text. Raises `ValueError`."""
    parsed = json.loads(arguments) if arguments.strip() else {}
    if isinstance(parsed, dict):
        return parsed
    raise ValueError("no JSON object")
