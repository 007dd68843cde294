"""What is committed under meshnode/wire is what proto/ means."""

from __future__ import annotations

from meshnode.wire._generate.__main__ import differences, render


def test_generated_files_are_up_to_date() -> None:
    changed, gone = differences(render())
    assert (changed, gone) == ([], []), "run `make generate`"
