"""Write the generated modules, or with `--check` say which of them differ from what proto/ means."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from meshnode.wire._generate.classes import render_classes
from meshnode.wire._generate.descriptors import WELL_KNOWN, describe, sources

_WIRE = Path(__file__).resolve().parents[1]
_PROTO = _WIRE.parents[1] / "proto"


def render() -> dict[Path, str]:
    """Every generated file with its content."""
    descriptor_set = describe(_PROTO, [*WELL_KNOWN, *sources(_PROTO)])
    return {_WIRE / name: text for name, text in render_classes(descriptor_set).items()}


def stale(wanted: dict[Path, str]) -> list[Path]:
    """Generated files on disk that nothing generates any more."""
    found = {
        path
        for path in _WIRE.rglob("*.py")
        if not path.relative_to(_WIRE).parts[0].startswith("_") and path.parent.name != "__pycache__"
    }
    return sorted(found - set(wanted))


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m meshnode.wire._generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    check = parser.parse_args(arguments).check
    wanted = render()
    changed = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    gone = stale(wanted)
    for path in [*changed, *gone]:
        print(
            f"{'differs' if check else 'writing' if path in wanted else 'removing'}: {path.relative_to(_WIRE)}"
        )
    if not check:
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        for path in gone:
            path.unlink()
        return 0
    return 1 if changed or gone else 0


if __name__ == "__main__":
    sys.exit(main())
