"""How a driver declares itself: the object its entry point names.

An entry point in the group of its kind (`meshnode.state`, `meshnode.nameresolution`,
`meshnode.secretstores`, …) is named after the component type (`state.redis`) and points at a `Driver`. Its
`open` takes the component's metadata, already parsed into the attrs class the driver declares, and is an
async context manager: what it starts, it ends on exit.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from attrs import NOTHING, field, frozen

__all__ = ["Driver", "DriverContext", "free_form", "option"]

T_co = TypeVar("T_co", covariant=True)
OptionsClass = type[Any]  # inside `Driver` the name `type` is a field


@frozen
class DriverContext:
    """What the node tells a driver besides its metadata.

    `wall` gives seconds since 1970 (never call `time.time()`), `rng` is the only source of chance, `env` the
    environment (never read `os.environ`): runs are reproducible that way.
    """

    component: str
    app_id: str
    namespace: str = "default"
    log: logging.Logger = field(factory=lambda: logging.getLogger("meshnode.driver"))
    wall: Callable[[], float] = time.time
    rng: random.Random = field(factory=random.Random)
    env: Mapping[str, str] = field(factory=lambda: os.environ, repr=False)


@frozen
class Driver(Generic[T_co]):
    """A component type that can be opened.

    `metadata` is an attrs class whose attributes are made with `option`; `needs_asyncio` asks for the node's
    trio-asyncio loop to be running around `open` (and only then is it started).
    """

    type: str
    metadata: OptionsClass
    open: Callable[[Any, DriverContext], AbstractAsyncContextManager[T_co]]
    summary: str = ""
    versions: tuple[str, ...] = ("v1",)
    needs_asyncio: bool = False


def option(
    name: str,
    doc: str,
    *,
    default: Any = NOTHING,
    secret: bool = False,
    allowed: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Any:
    """One metadata field of a component: an attrs attribute with its YAML name and documentation.

    The attribute's annotation gives the type: `str`, `int`, `float`, `bool`, `timedelta` (durations such as
    `5s`, `1m30s`; a bare number is seconds), `bytes` sizes as `int`, or one of these with `| None`. Without
    `default` the field is required. Names are matched without regard to case, as Dapr does.
    """
    return field(
        default=default,
        kw_only=True,
        repr=not secret,
        metadata={"name": name, "doc": doc, "secret": secret, "allowed": allowed, "aliases": aliases},
    )


def free_form(doc: str) -> Any:
    """All metadata that no `option` of the class has, as written: an attrs attribute for a
    `Mapping[str, str]`, for a driver that only passes its metadata on.

    Names that the node itself looks at are among them.
    """
    return field(factory=dict, kw_only=True, repr=False, metadata={"doc": doc, "free_form": True})
