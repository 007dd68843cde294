"""Time zones by name, and the machine's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["local_zone", "named_zone"]

_LOCALTIME = Path("/etc/localtime")


def named_zone(name: str) -> tzinfo:
    """Raises `ValueError` for a name that no database has."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError(f"there is no time zone {name!r}") from None


def local_zone(env: Mapping[str, str]) -> tzinfo:
    """What `TZ` names, else what the machine is set to; UTC where neither can be read, as in Go."""
    try:
        if "TZ" not in env:
            return _from_file(_LOCALTIME)
        name = env["TZ"].removeprefix(":")
        return _from_file(Path(name)) if name.startswith("/") else named_zone(name)
    except (OSError, ValueError):
        return UTC


def _from_file(path: Path) -> tzinfo:
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key="Local")
