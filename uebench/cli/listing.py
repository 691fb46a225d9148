"""The verbs that answer questions about the suite and this machine: list, show, doctor."""

from __future__ import annotations

import json

import click

from ..common.errors import UserError
from ..common.names import SHOWN
from .completion import complete_method, complete_shown
from .shared import json_option, output, plugin_option

LISTED = (
    "attacks",
    "defenses",
    "victims",
    "detectors",
    "datasets",
    "models",
    "protocols",
    "configs",
    "executors",
)
"""The lists that `uebench list` prints."""


@click.command("list")
@click.argument("kind", type=click.Choice(LISTED), required=False, metavar="[KIND]")
@json_option
@plugin_option
def list_(kind: str | None, as_json: bool) -> None:
    """List the available methods, data sets, models and more.

    KIND is attacks, defenses, victims, detectors, datasets, models, protocols, configs or
    executors; by default, all of these are listed.

    \b
    uebench list
    uebench list attacks --json
    """  # noqa: D301
    from ..suite.listing import catalog, print_catalog

    lists = catalog([kind] if kind else list(LISTED))
    if as_json:
        click.echo(json.dumps(lists[kind] if kind else lists, indent=1))
    else:
        print_catalog(lists)


@click.command()
@click.argument("kind", required=False, metavar="[KIND]", shell_complete=complete_shown)
@click.argument("name", required=False, metavar="NAME", shell_complete=complete_method)
@json_option
@plugin_option
def show(kind: str | None, name: str | None, as_json: bool) -> None:
    """Describe a method, detector, data set, protocol or executor.

    Each option is shown with its default and the values that it accepts. KIND is attack, defense,
    victim, detector, dataset, protocol or executor; it is needed only if NAME belongs to several of
    them.

    \b
    uebench show em
    uebench show attack em
    uebench show protocol paper
    uebench show synthetic
    """  # noqa: D301
    from ..suite.listing import describe, kind_of, print_description

    if kind is None:
        raise UserError(
            "show needs a NAME, as in `uebench show em`; `uebench list` prints all names"
        )
    if name is None:
        if kind in SHOWN:
            raise UserError(f"show {kind} needs a NAME; `uebench list {kind}s` prints the names")
        kind, name = kind_of(kind), kind
    elif kind not in SHOWN:
        raise UserError(f"KIND must be {', '.join(SHOWN[:-1])} or {SHOWN[-1]}, got {kind!r}")
    description = describe(kind, name)
    output(description, as_json, print_description)


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine: versions, devices, precision and disk.

    It says what is missing and what will be slow. The exit status is 1 if something must be fixed.

    \b
    uebench doctor
    uebench doctor --json
    """  # noqa: D301
    from ..suite.doctor import examine, print_findings

    findings = examine()
    output(findings, as_json, print_findings)
    if any(finding["level"] == "bad" for finding in findings):
        raise SystemExit(1)
