"""The group of all verbs: its help in sections, the nearest verb to a typo, and clear errors."""

from __future__ import annotations

import contextlib
import difflib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..common.errors import ConflictError, MethodError, UserError
from ..common.text import plain_text

SECTIONS = {
    "Run and compare": ("run", "table", "report", "plot", "verify"),
    "Poisons": ("craft", "audit", "detect", "import", "card"),
    "Look things up": ("list", "show"),
    "Your own methods": ("new", "check"),
    "Sharing": ("publish", "validate", "merge", "site"),
    "This machine": ("doctor", "store", "completion"),
}
"""Verbs by what they are for; a verb that is not listed here appears under "More"."""

DEBUG = "UEBENCH_DEBUG"
"""The environment variable that, if it is not empty, adds a traceback to every error."""


def _set_debug(_: click.Context, __: click.Parameter, debug: bool) -> None:
    """Show tracebacks from now on, in this process and in every worker that it starts."""
    if debug:
        os.environ[DEBUG] = "1"


def debug_option(hidden: bool) -> click.Option:
    """Return `--debug`, which every verb takes although only the help of the group shows it."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        hidden=hidden,
        callback=_set_debug,
        help=f"Show the traceback of any error, as {DEBUG}=1 does.",
    )


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn any exception into one message and an exit status, with a traceback if asked for.

    Ctrl-C has exit status 130, and a user's mistake 2. A fault, of the suite or of somebody's
    method, has exit status 1 and names its file and line.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt:
        click.echo("stopped: run the same command again", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get(DEBUG):
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        raise _explained(error) from None


def _explained(error: Exception) -> click.ClickException:
    """Return an exception as click reports it: the message and the exit status."""
    if isinstance(error, UserError):
        return click.UsageError(plain_text(str(error)))
    if isinstance(error, ConflictError):
        return click.ClickException(plain_text(str(error)))
    if isinstance(error, MethodError):
        return click.ClickException(plain_text(f"{error}; --debug shows the traceback"))
    if isinstance(error, MemoryError):
        reason = plain_text(str(error)) or "more was needed than is available"
        return click.UsageError(f"out of memory: {reason}; raise the limit (ulimit) or free memory")
    if isinstance(error, OSError):
        from ..store.store import StoreError  # imported here, since it loads torch

        if isinstance(error, StoreError):
            return click.UsageError(plain_text(str(error)))
    return click.ClickException(plain_text(f"{_fault(error)}; --debug shows the traceback"))


def _fault(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    frames = traceback.extract_tb(error.__traceback__)
    origin = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"unexpected {type(error).__name__}: {text[:500]}{origin}"


class NamedVerbs(click.Group):
    """A group that, for a verb it does not have, names the nearest one and all the others."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that was typed.

        Raises:
            UsageError: there is no such verb; the message names the nearest one.
        """
        verb = args[0]
        if self.get_command(ctx, verb) is None and not verb.startswith("-"):
            verbs = self.list_commands(ctx)
            near = difflib.get_close_matches(verb, verbs, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            owner = f"{ctx.info_name} has no verb" if ctx.parent else "there is no verb"
            ctx.fail(f"{owner} {verb!r}{hint}; the verbs are {', '.join(verbs)}")
        return super().resolve_command(ctx, args)


class Verbs(NamedVerbs):
    """The group of all verbs: lists them by purpose and explains what goes wrong in them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(debug_option(hidden=False))

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a verb and give `--debug` to it and to the verbs below it."""
        super().add_command(cmd, name)
        for command in (cmd, *(cmd.commands.values() if isinstance(cmd, click.Group) else ())):
            command.params.append(debug_option(hidden=True))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that was typed."""
        with clear_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries of all verbs, section by section."""
        verbs = self.list_commands(ctx)
        listed = {verb for section in SECTIONS.values() for verb in section}
        rest = tuple(verb for verb in verbs if verb not in listed)
        longest = max(map(len, verbs), default=0)
        for title, section in {**SECTIONS, "More": rest}.items():
            commands = [(verb, self.get_command(ctx, verb)) for verb in section if verb in verbs]
            rows = [
                (verb.ljust(longest), command.get_short_help_str(formatter.width - 6 - longest))
                for verb, command in commands
                if command is not None and not command.hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
