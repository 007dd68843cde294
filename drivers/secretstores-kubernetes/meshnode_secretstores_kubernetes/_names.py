"""What can be a namespace's or a secret's name, by Kubernetes' own rules (RFC 1123). No I/O.

Nothing else gets into an address, so a second spelling of a secret's name is no way around scopes.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_namespace", "is_secret"]

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_LONGEST_LABEL: Final = 63
_LONGEST: Final = 253


def is_namespace(text: str) -> bool:
    return len(text) <= _LONGEST_LABEL and re.fullmatch(_LABEL, text) is not None


def is_secret(text: str) -> bool:
    return len(text) <= _LONGEST and re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", text) is not None
