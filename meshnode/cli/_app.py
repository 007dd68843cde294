"""The `meshnode` command: its verbs, its help, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rich_click as click
from click.exceptions import NoArgsIsHelpError

from meshnode.cli._color import paint, use_color
from meshnode.cli._errors import CliError, leaves, suggestion
from meshnode.cli._exit import ExitCode
from meshnode.cli._output import ReaderGone
from meshnode.cli._verb import LazyGroup

__all__ = ["application", "main"]

_HERE = "meshnode.cli."

VERBS = {
    "run": "run",
    "node": "_nodehelp",
    "list": "list_",
    "status": "status",
    "logs": "logs",
    "stop": "stop",
    "invoke": "invoke",
    "state": "state",
    "publish": "publish",
    "subscribe": "subscribe",
    "components": "components",
    "breakers": "breakers",
    "explain": "explain",
    "schema": "schema",
    "stubs": "stubs",
    "new": "new",
    "quickstart": "quickstart",
    "config": "config",
    "completion": "completion",
    "version": "version",
}

_PANELS = {
    "Run": ["run", "node", "stop", "new", "quickstart"],
    "Look": ["list", "status", "logs", "breakers", "explain"],
    "Use": ["invoke", "state", "publish", "subscribe"],
    "Develop": ["components", "schema", "stubs"],
    "Tool": ["config", "completion", "version"],
}


@click.group(
    cls=LazyGroup,
    verbs={name: _HERE + module for name, module in VERBS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.rich_config(
    {
        "commands_before_options": True,
        "command_groups": {
            "meshnode": [{"name": name, "commands": verbs} for name, verbs in _PANELS.items()]
        },
    }
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _, value: _version(context) if value else None,
    help="Same as `meshnode version`.",
)
def application() -> None:
    """A service-mesh node beside your application, over gRPC only, with Dapr's wire contract.

    Exit codes: 0 success, 1 failure, 2 usage or invalid resources, 130 interrupt.
    """


def _version(context: click.Context) -> None:
    from meshnode.cli.version import show_version

    show_version()
    context.exit()


def main(args: Sequence[str]) -> int:
    """Run the command line, return the exit code."""
    failure: BaseException
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BaseExceptionGroup as group:
        failure = _single(group)
    except (Exception, KeyboardInterrupt) as error:
        failure = error
    return _explained(failure)


def _run(args: Sequence[str]) -> int:
    result = application.main(args=list(args), prog_name="meshnode", standalone_mode=False)
    return result if isinstance(result, int) else ExitCode.SUCCESS


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a run of trio failed with; raises the group itself when that is more than one thing."""
    errors = leaves(group)
    if len(errors) > 1 and not all(isinstance(error, CliError) for error in errors):
        raise group
    first: BaseException = errors[0]
    return first


def _explained(error: BaseException) -> int:
    """Say it on standard error; what nobody foresaw is raised again."""
    match error:
        case ReaderGone() | BrokenPipeError():
            # The reader has what it wanted. Python must not complain about it at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.SUCCESS
        case CliError():
            _complain(error.message, error.hint)
            return error.code
        case NoArgsIsHelpError():
            click.echo(error.ctx.get_help() if error.ctx else "", err=True)
            return ExitCode.USAGE
        case click.UsageError():
            _complain(_lower(error.format_message()), _usage_hint(error))
            return ExitCode.USAGE
        case click.ClickException():
            _complain(_lower(error.format_message()), "")
            return ExitCode.FAILURE
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.INTERRUPTED
    raise error


def _usage_hint(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name for parameter in error.ctx.command.params for name in parameter.opts]
        return suggestion(error.option_name, known) or f"see {error.ctx.command_path} --help"
    return f"see {error.ctx.command_path} --help" if error.ctx is not None else ""


def _lower(message: str) -> str:
    sentence = message.split(" Did you mean")[0].split(" (Possible")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _complain(message: str, hint: str) -> None:
    color = use_color("auto", os.environ, sys.stderr)
    print(f"{paint('error:', 'red', color)} {message}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)
