"""`meshnode completion bash|zsh|fish`: completion from the help pages' own definitions."""

from __future__ import annotations

import rich_click as click
from click import get_current_context
from click.shell_completion import get_completion_class

from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_VARIABLE = "_MESHNODE_COMPLETE"


@click.command("completion", cls=Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(meshnode completion bash)"          in ~/.bashrc
    zsh:  eval "$(meshnode completion zsh)"           in ~/.zshrc
    fish: meshnode completion fish > ~/.config/fish/completions/meshnode.fish
    """
    root = get_current_context().find_root().command
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    output().text(shell_class(root, {}, "meshnode", _VARIABLE).source().rstrip())
