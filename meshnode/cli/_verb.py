"""What every command shares: click classes that know the global options, and lazy loading of the verbs.

`-o/--output` and `--color` are accepted before the verb and after it. A mistyped command or option gets a
suggestion; the sentence is printed by `_app.main`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, final

import rich_click as click
from click import get_current_context

from meshnode.cli._errors import UsageProblem, suggestion
from meshnode.cli._flags import FlagTable, Kind, Parsed
from meshnode.cli._output import Output
from meshnode.cli._runflags import GLOBAL_FLAGS
from meshnode.cli._settings import Resolved, resolve

__all__ = ["FlagVerb", "LazyGroup", "Verb", "VerbGroup", "given_globals", "output", "settings_of"]

_GLOBALS = FlagTable("meshnode", GLOBAL_FLAGS)
_META = "meshnode.globals"


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_root().meta.setdefault(_META, {})[parameter.name] = value


def _global_options() -> list[click.Option]:
    return [
        click.Option(
            [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])],
            type=click.Choice(flag.choices),
            help=flag.help,
            expose_value=False,
            is_eager=True,
            callback=_remember,
        )
        for flag in GLOBAL_FLAGS
    ]


def given_globals() -> dict[str, str]:
    """The global options of the command line, by name."""
    found: dict[str, str] = get_current_context().find_root().meta.get(_META, {})
    return found


def output() -> Output:
    """The output of the running command."""
    settings = resolve(_GLOBALS, given_globals(), os.environ)
    return Output(settings.get("output", "table"), settings.get("color", "auto"))


@final
class Verb(click.RichCommand):
    """A command with the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_global_options())


class VerbGroup(click.RichGroup):
    """A group of commands with suggestions for mistyped ones."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_global_options())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            known = self.list_commands(ctx)
            raise UsageProblem(
                f"unknown command {name}", suggestion(name, known) or f"see {ctx.command_path} --help"
            )
        return super().resolve_command(ctx, args)


@final
class LazyGroup(VerbGroup):
    """The top group: verbs live in modules that are imported when they are needed."""

    def __init__(self, *args: Any, verbs: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = dict(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self.verbs.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(module).command
        return command


@final
class FlagVerb(click.RichCommand):
    """A command whose flags come from a `FlagTable`, parsed by it: click makes help and completion only.

    The callback gets one argument, `parsed`.
    """

    def __init__(self, table: FlagTable, name: str, callback: Any, help: str, **kwargs: Any) -> None:  # noqa: A002
        super().__init__(name, callback=callback, help=help, params=list(_options(table)), **kwargs)
        self.table = table
        # The words after the flags are not click's to read.
        self.allow_interspersed_args = False
        self.allow_extra_args = True
        self.ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return []
        if {"--help", "-h"} & set(args[: args.index("--")] if "--" in args else args):
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        parsed = self.table.parse(args)
        ctx.params["parsed"] = parsed
        return []


def _options(table: FlagTable) -> list[click.Option]:
    options = []
    for flag in table.flags:
        if flag.refused or flag.hidden:
            continue
        words = [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])]
        shown = f"{flag.help} [default: {flag.default}]" if flag.default else flag.help
        options.append(
            click.Option(
                words,
                help=shown,
                is_flag=flag.kind is Kind.BOOL,
                metavar=None if flag.kind is Kind.BOOL else flag.kind.value,
                type=click.Choice(flag.choices) if flag.choices else _CLICK_TYPES.get(flag.kind),
                multiple=flag.kind in (Kind.LIST, Kind.PATHS),
                expose_value=False,
            )
        )
    return options


_CLICK_TYPES = {Kind.PATH: click.Path(), Kind.PATHS: click.Path()}


def settings_of(table: FlagTable, parsed: Parsed) -> Resolved:
    """The parsed flags with environment and files below them."""
    names = {flag.name for flag in table.flags}
    given = {name: value for name, value in given_globals().items() if name in names}
    return resolve(table, given | dict(parsed.values), os.environ)
