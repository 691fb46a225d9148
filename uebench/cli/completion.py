"""What the shell completes: names of methods, data sets and so on, without loading torch."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from ..common.names import SHOWN, names

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete(kind: str) -> Completer:
    """Return what completes one name of a kind, as in `uebench list KIND`."""

    def completer(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
        known = [name.replace("PATH", "") for name in names(kind)]
        return [CompletionItem(name) for name in known if name.startswith(start)]

    return completer


def complete_list(kind: str) -> Completer:
    """Return what completes the last name of a list such as `em,lsp`, each name once."""

    def completer(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
        before, comma, last = start.rpartition(",")
        given = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in names(kind)
            if name.startswith(last) and name not in given
        ]

    return completer


def complete_method(context: click.Context, _: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete a method's name of the kind that was given before it, or of both."""
    kind = context.params.get("kind")
    kinds = [f"{kind}s"] if kind else ["attacks", "defenses"]
    known = [name for each in kinds for name in names(each)]
    return [CompletionItem(name) for name in known if name.startswith(start)]


def complete_shown(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the kind, or the name that does without one, of what `uebench show` shows."""
    known = [*SHOWN, *(name for kind in SHOWN for name in names(f"{kind}s"))]
    return [CompletionItem(name) for name in known if name.startswith(start)]


def complete_config(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete a configuration's name, or a file."""
    known = [CompletionItem(name) for name in names("configs") if name.startswith(start)]
    return known or [CompletionItem(start, type="file")]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes verbs, options and names in a shell.

    \b
    uebench completion bash >> ~/.bashrc
    uebench completion zsh >> ~/.zshrc
    uebench completion fish > ~/.config/fish/completions/uebench.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    main = context.find_root().command
    click.echo(found(main, {}, "uebench", "_UEBENCH_COMPLETE").source())
