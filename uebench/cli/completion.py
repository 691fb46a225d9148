"""Shell completion of methods, data sets and other names, without loading torch."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..common.names import SHOWN, names

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _matching(candidates: list[str], start: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in candidates if name.startswith(start)]


def complete(kind: str) -> Completer:
    """Return a completer of one name of a kind, as in `uebench list KIND`."""

    def completer(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
        return _matching([name.replace("PATH", "") for name in names(kind)], start)

    return completer


def complete_list(kind: str) -> Completer:
    """Return a completer of the last name in a list such as `em,lsp`; it offers no name twice."""

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
    """Complete the name of a method, of the kind that precedes it or of any kind."""
    kind = context.params.get("kind")
    kinds = [f"{kind}s"] if kind else ["attacks", "defenses", "victims"]
    return _matching([name for each in kinds for name in names(each)], start)


def complete_shown(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the first argument of `uebench show`: a kind, or a name of any kind."""
    return _matching([*SHOWN, *(name for kind in SHOWN for name in names(f"{kind}s"))], start)


def complete_config(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the name of a configuration or, if none matches, of a file."""
    return _matching(names("configs"), start) or [CompletionItem(start, type="file")]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for bash, zsh or fish.

    The script completes verbs, options, and the names of methods and data sets.

    \b
    uebench completion bash >> ~/.bashrc
    uebench completion zsh >> ~/.zshrc
    uebench completion fish > ~/.config/fish/completions/uebench.fish
    """  # noqa: D301
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    main = context.find_root().command
    click.echo(shell_class(main, {}, "uebench", "_UEBENCH_COMPLETE").source())
