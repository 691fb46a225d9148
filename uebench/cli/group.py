"""The group of all verbs: sections in its help, and the nearest verb for a mistyped one."""

from __future__ import annotations

import difflib

import click

SECTIONS = {
    "Run and compare": ("run", "table", "report", "plot", "verify"),
    "Poisons": ("craft", "audit", "import", "card"),
    "What there is": ("list", "show"),
    "Your own methods": ("new", "check"),
    "Sharing": ("publish", "validate"),
    "This machine": ("doctor", "store", "completion"),
}
"""Verbs by what they are for; the others come last."""


class Verbs(click.Group):
    """A group that tells its verbs by what they are for."""

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
