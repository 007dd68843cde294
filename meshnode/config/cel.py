"""CEL expressions: circuit breakers' `trip`, and the routing rules of subscriptions.

The engine is `common-expression-language` (Rust, module `cel`). Measured on one core against `cel-python`:
evaluating `consecutiveFailures > 5 && double(totalFailures)/double(requests) > 0.5` takes 2.4 µs against 550
µs, compiling it 1 ms against 180 ms. Its package imports a command line of its own with prompt_toolkit and
typer (0.7 s), so only the extension module is loaded, which takes 25 ms; and that happens at the first
expression, not at import. May import this package's private modules only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from sys import modules
from types import ModuleType
from typing import Any, final

from meshnode.config._problems import did_you_mean

__all__ = ["COUNTS", "Program", "compile_program", "compile_trip"]

COUNTS = ("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures")
"""What a trip expression can use, as in Dapr."""

_COMPREHENSION = "@not_strictly_false"
_MAX_TEXT = 4096
"""Deeper nesting than fits in here is the engine's parser's own limit."""


@final
class Program:
    """A compiled expression. Evaluating it is pure and may happen from anywhere."""

    __slots__ = ("_program", "text")

    def __init__(self, text: str, program: Any) -> None:
        self.text = text
        self._program = program

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The expression's value. Raises `ValueError` where it has none: an unknown name, a missing key, a
        division by zero.
        """
        try:
            return self._program.execute(dict(values))
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{self.text}: {error}") from error


def compile_program(text: str) -> Program:
    """Raises `ValueError` with the place of the first mistake."""
    if len(text) > _MAX_TEXT:
        raise ValueError(f"a CEL expression of more than {_MAX_TEXT} characters")
    try:
        return Program(text, _engine().compile(text))
    except ValueError as error:
        raise ValueError(f'"{text}" is not a CEL expression: {_short(str(error))}') from None


def compile_trip(text: str) -> Callable[[Mapping[str, int]], bool]:
    """A circuit breaker's trip expression over `COUNTS`. Raises `ValueError` for what cannot be one.

    An expression without a value at some counts (a division by zero before the first request) does not trip,
    as in Dapr.
    """
    program = compile_program(text)
    _check_names(text, program)
    _check_result(text, program)

    def trip(counts: Mapping[str, int]) -> bool:
        try:
            return program.evaluate(counts) is True
        except ValueError:
            return False

    return trip


def _check_names(text: str, program: Program) -> None:
    references = program._program.references()
    if _COMPREHENSION in references["functions"]:
        return  # A macro's own variables cannot be told from unknown names; the trial below finds those.
    for name in references["variables"]:
        if name not in COUNTS:
            raise ValueError(f'"{text}" uses the unknown name {name}; {did_you_mean(name, COUNTS)}')


def _check_result(text: str, program: Program) -> None:
    """Try it: with all counts 1 every part that the operators do not skip has a value."""
    try:
        result = program.evaluate(dict.fromkeys(COUNTS, 1))
    except ValueError as error:
        if "Undefined" in str(error) or "overload" in str(error).lower():
            raise
        return
    if not isinstance(result, bool):
        raise ValueError(  # noqa: TRY004 - the text is wrong, not a type
            f'"{text}" gives {result!r}, not true or false (write it like consecutiveFailures > 5)'
        )


def _short(message: str) -> str:
    """`column 22: mismatched input …` from the engine's drawing of several lines."""
    first = message.split("ERROR: <input>:", 1)[-1].split("\n", 1)[0]
    place, colon, what = first.partition(": ")
    line_and_column = place.split(":")
    if not colon or len(line_and_column) != 2:
        return first
    return f"column {line_and_column[1]}: {what.removeprefix('Syntax error: ').split(' expecting {')[0]}"


@functools.cache
def _engine() -> ModuleType:
    if "cel" in modules:
        return import_module("cel.cel")
    package = find_spec("cel")
    locations = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("cel.cel", list(locations)) if locations else None
    if spec is None or spec.loader is None:
        return import_module("cel")
    # Under its own name, so that a later `import cel` finds it: the extension can be initialised once only.
    module = modules["cel.cel"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
