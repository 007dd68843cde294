"""`meshnode schema KIND`: the JSON Schema of a resource kind, for editors."""

from __future__ import annotations

import json

import rich_click as click

from meshnode.cli._errors import UsageProblem, suggestion
from meshnode.cli._output import Column
from meshnode.cli._verb import Verb, output

__all__ = ["command"]


@click.command("schema", cls=Verb)
@click.argument("kind", required=False)
def command(kind: str | None) -> None:
    """Print the JSON Schema (draft-07) of a resource KIND; without one, list the kinds.

    In a YAML file, `# yaml-language-server: $schema=FILE` as first line makes an editor use it.
    """
    from meshnode.config import schema as schemas

    out = output()
    if kind is None:
        out.rows([{"kind": name} for name in schemas.KINDS], (Column("kind", "KIND"),))
        return
    names = {name.casefold(): name for name in schemas.KINDS}
    if kind.casefold() not in names:
        raise UsageProblem(f"there is no kind {kind}", suggestion(kind, schemas.KINDS))
    out.text(json.dumps(schemas.schema(names[kind.casefold()]), indent=2))
