"""The verbs that say what there is: list, show, doctor."""

from __future__ import annotations

import json

import click

from ..common.errors import UserError
from ..common.names import SHOWN
from .completion import complete_method, complete_shown
from .shared import plugin_option

KINDS = ("attacks", "defenses", "datasets", "models", "protocols", "configs", "executors")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def list_(kind: str | None, as_json: bool) -> None:
    """List attacks, defenses, data sets, models, protocols, configurations or executors.

    \b
    uebench list
    uebench list attacks --json
    """  # noqa: D301
    from ..suite.listing import catalog, print_catalog

    found = catalog([kind] if kind else list(KINDS))
    if as_json:
        click.echo(json.dumps(found[kind] if kind else found, indent=1))
    else:
        print_catalog(found)


@click.command()
@click.argument("kind", required=False, metavar="[KIND]", shell_complete=complete_shown)
@click.argument("name", required=False, metavar="NAME", shell_complete=complete_method)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def show(kind: str | None, name: str | None, as_json: bool) -> None:
    """Show a method, protocol or executor: what it does, its options with their ranges.

    KIND is attack, defense, protocol or executor; a name that is of one kind does without.

    \b
    uebench show em
    uebench show attack em
    uebench show protocol paper
    """  # noqa: D301
    from ..suite.listing import describe, kind_of, print_description

    if kind is None:
        raise UserError("show needs a NAME, as in `uebench show em`; `uebench list` has them")
    if name is None:
        if kind in SHOWN:
            raise UserError(f"show {kind} needs a NAME; `uebench list {kind}s` has them")
        kind, name = kind_of(kind), kind
    elif kind not in SHOWN:
        raise UserError(f"KIND is {', '.join(SHOWN[:-1])} or {SHOWN[-1]}, got {kind!r}")
    found = describe(kind, name)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        print_description(found)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine has, what will be slow, and whether torch and torchvision fit.

    \b
    uebench doctor
    uebench doctor --json
    """  # noqa: D301
    from ..suite.doctor import examine, print_findings

    findings = examine()
    if as_json:
        click.echo(json.dumps(findings, indent=1))
    else:
        print_findings(findings)
    if any(f["level"] == "bad" for f in findings):
        raise SystemExit(1)
