"""Write the generated files, or with `--check` say which of them differ from what proto/ means."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from meshnode.wire._generate.classes import render_classes
from meshnode.wire._generate.codec import render_codecs
from meshnode.wire._generate.descriptors import WELL_KNOWN, describe, sources
from meshnode.wire._generate.reflection import render_descriptors

__all__ = ["differences", "main", "render"]

_WIRE = Path(__file__).resolve().parents[1]
_PROTO = _WIRE.parents[1] / "proto"


def render() -> dict[Path, bytes]:
    """Every generated file with its content."""
    descriptor_set = describe(_PROTO, [*WELL_KNOWN, *sources(_PROTO)])
    modules = render_classes(descriptor_set) | render_codecs(descriptor_set)
    contents = {name: text.encode() for name, text in modules.items()}
    return {
        _WIRE / name: content for name, content in (contents | render_descriptors(descriptor_set)).items()
    }


def differences(wanted: dict[Path, bytes]) -> tuple[list[Path], list[Path]]:
    """The files whose content is not what is wanted, and those that nothing generates any more."""
    changed = [path for path, content in wanted.items() if not path.exists() or path.read_bytes() != content]
    # A generated module lies in the folder of its protobuf package, where nothing is written by hand.
    packages = {path.relative_to(_WIRE).parts[0] for path in wanted if path.parent != _WIRE}
    found = {path for package in packages for path in (_WIRE / package).rglob("*.py")}
    return changed, sorted(found - set(wanted))


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m meshnode.wire._generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    check = parser.parse_args(arguments).check
    wanted = render()
    changed, gone = differences(wanted)
    for path in [*changed, *gone]:
        verb = "differs" if check else "writing" if path in wanted else "removing"
        print(f"{verb}: {path.relative_to(_WIRE)}")
    if check:
        return 1 if changed or gone else 0
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[path])
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
