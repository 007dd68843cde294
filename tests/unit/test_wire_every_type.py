"""The codec generator on kinds of fields that our contract does not use, and on awkward names."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from wire_oracle import Pair, Scribe, agree, load_pairs

import meshnode.wire
from meshnode.wire._generate.classes import render_classes
from meshnode.wire._generate.codec import render_codecs
from meshnode.wire._generate.descriptors import describe

NAMES = ["Single", "Present", "Many", "One", "Maps", "Names", "Wrapped", "Timed"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """The messages of wire_every_type.proto, generated for this test and gone with it."""
    descriptor_set = describe(Path(__file__).parent, ["wire_every_type.proto"])
    folder = tmp_path_factory.mktemp("generated")
    for name, text in (render_classes(descriptor_set) | render_codecs(descriptor_set)).items():
        if name.startswith("every/"):
            folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            folder.joinpath(name).write_text(text)
    meshnode.wire.__path__.append(str(folder))
    yield load_pairs(descriptor_set)
    meshnode.wire.__path__.remove(str(folder))


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_oracle(pairs: dict[str, Pair], name: str) -> None:
    pair, scribe = pairs[f"every.type.{name}"], Scribe(random.Random(name))
    taken = sum(agree(pair, scribe.message(pair.descriptor)) for _ in range(400))
    assert taken > 50


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_oracle_about_damage(pairs: dict[str, Pair], name: str) -> None:
    pair, scribe = pairs[f"every.type.{name}"], Scribe(random.Random(name))
    refused = sum(not agree(pair, scribe.damaged(scribe.message(pair.descriptor))) for _ in range(400))
    assert refused > 20


@pytest.mark.usefixtures("pairs")
def test_every_default_and_every_extreme() -> None:
    every: Any = importlib.import_module("meshnode.wire.every.type")
    assert (
        bytes(every.Single()) == bytes(every.Many()) == bytes(every.Maps()) == bytes(every.Present()) == b""
    )
    zeros = dict.fromkeys("cdefghijkl", 0)
    present = every.Present(a=0.0, b=0.0, m=False, n="", o=b"", p=every.Colour(0), **zeros)
    assert every.Present.parse(bytes(present)) == present
    low = {"c": -(1 << 31), "d": -(1 << 63), "g": -(1 << 31), "h": -(1 << 63)}
    extreme = every.Single(**low, e=(1 << 32) - 1, f=(1 << 64) - 1, p=every.Colour(-7))
    assert every.Single.parse(bytes(extreme)) == extreme


@pytest.mark.usefixtures("pairs")
def test_plain_values_in_place_of_well_known_types() -> None:
    every: Any = importlib.import_module("meshnode.wire.every.type")
    wrapped = every.Wrapped(a=False, b=0, c="", d=b"x", e=1.5, f=[1, 0, 2], g={"k": "v", "": ""}, h=0)
    assert every.Wrapped.parse(bytes(wrapped)) == wrapped
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    timed = every.Timed(a=moment, b=[timedelta(seconds=-1.5), timedelta(0)], c={1: moment})
    assert every.Timed.parse(bytes(timed)) == timed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("c", 1 << 31),
        ("d", 1 << 63),
        ("e", -1),
        ("f", 1 << 64),
        ("g", -(1 << 31) - 1),
        ("h", 1 << 63),
    ],
)
@pytest.mark.usefixtures("pairs")
def test_numbers_that_do_not_fit(field: str, value: int) -> None:
    every: Any = importlib.import_module("meshnode.wire.every.type")
    with pytest.raises(ValueError, match="does not fit"):
        bytes(every.Single(**{field: value}))
