"""Whether to colour: `--color` (or its settings), then NO_COLOR, then FORCE_COLOR, then whether it is a
terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

__all__ = ["paint", "use_color"]

CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "dim": 2, "bold": 1}


def use_color(choice: str, env: Mapping[str, str], stream: IO[Any]) -> bool:
    """Decide for one stream. NO_COLOR and FORCE_COLOR count when they are set and not empty."""
    if choice != "auto":
        return choice == "always"
    if env.get("NO_COLOR"):
        return False
    if env.get("FORCE_COLOR"):
        return True
    return stream.isatty() and env.get("TERM") != "dumb"


def paint(text: str, color: str, enabled: bool = True) -> str:
    """`text` in `color`, or as it is."""
    return f"\x1b[{CODES[color]}m{text}\x1b[0m" if enabled and color else text
