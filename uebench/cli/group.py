"""The group of all verbs: sections in its help, and the nearest verb for a mistyped one."""

from __future__ import annotations

import contextlib
import difflib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..common.errors import MethodError, UserError
from ..common.text import plain_text

SECTIONS = {
    "Run and compare": ("run", "table", "report", "plot", "verify"),
    "Poisons": ("craft", "audit", "import", "card"),
    "What there is": ("list", "show"),
    "Your own methods": ("new", "check"),
    "Sharing": ("publish", "validate"),
    "This machine": ("doctor", "store", "completion"),
}
"""Verbs by what they are for; the others come last."""


DEBUG = "UEBENCH_DEBUG"


def _set_debug(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    """Show tracebacks from now on, in this process and in those that it starts."""
    if wanted:
        os.environ[DEBUG] = "1"


def debug_option(hidden: bool) -> click.Option:
    """Return `--debug`, which every verb takes; the help of the group alone shows it."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        hidden=hidden,
        callback=_set_debug,
        help=f"Show the traceback of any error ({DEBUG}=1 does the same).",
    )


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn an exception into one sentence and an exit status, with its traceback if asked for.

    What a user did wrong has exit status 2. A fault, of the suite or of somebody's method, has exit
    status 1 and names the file and line.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        raise _explained(error) from None


def _explained(error: Exception) -> click.ClickException:
    """Return what the command line says of an exception."""
    if isinstance(error, UserError):
        return click.UsageError(plain_text(str(error)))
    if isinstance(error, MethodError):
        return click.ClickException(plain_text(f"{error}; --debug shows the traceback"))
    if isinstance(error, MemoryError):
        reason = plain_text(str(error)) or "more was needed than there is"
        return click.UsageError(f"out of memory: {reason}; raise the limit (ulimit) or free memory")
    if isinstance(error, OSError):
        from ..store.store import StoreError  # imported here, since it loads torch

        if isinstance(error, StoreError):
            return click.UsageError(plain_text(str(error)))
    return click.ClickException(plain_text(f"{_fault(error)}; --debug shows the traceback"))


def _fault(error: Exception) -> str:
    """Return an unexpected exception with the file and line that raised it."""
    text = " ".join(str(error).split()) or "no message"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"unexpected {type(error).__name__}: {text[:500]}{where}"


class Verbs(click.Group):
    """A group that lists its verbs by purpose and explains what goes wrong in them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(debug_option(hidden=False))

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a verb, which takes `--debug` too."""
        super().add_command(cmd, name)
        for command in (cmd, *(cmd.commands.values() if isinstance(cmd, click.Group) else ())):
            command.params.append(debug_option(hidden=True))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that was typed."""
        with clear_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs, a section each."""
        there = self.list_commands(ctx)
        sorted_in = {verb for verbs in SECTIONS.values() for verb in verbs}
        rest = tuple(verb for verb in there if verb not in sorted_in)
        longest = max(map(len, there), default=0)
        for title, verbs in {**SECTIONS, "More": rest}.items():
            found = [(verb, self.get_command(ctx, verb)) for verb in verbs if verb in there]
            limit = formatter.width - 6 - longest
            rows = [
                (verb.ljust(longest), command.get_short_help_str(limit))
                for verb, command in found
                if command is not None and not command.hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that is meant.

        Raises:
            UsageError: there is none of this name, with the nearest one.
        """
        verb = args[0]
        if self.get_command(ctx, verb) is None and not verb.startswith("-"):
            there = self.list_commands(ctx)
            near = difflib.get_close_matches(verb, there, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            ctx.fail(f"there is no verb {verb!r}{hint}; there are {', '.join(there)}")
        return super().resolve_command(ctx, args)
