"""The verbs for authors of methods: new, check."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import UserError
from .completion import complete_method
from .shared import plugin_option, stdout_console

if TYPE_CHECKING:
    from ..methods.registry import Kind
    from ..testing import Outcome

KIND = click.Choice(["attack", "defense"])


@click.command()
@click.argument("kind", type=KIND)
@click.argument("name")
@click.option(
    "--into",
    metavar="FOLDER",
    default=".",
    show_default=True,
    help="Where the package's folder is made.",
)
def new(kind: str, name: str, into: str) -> None:
    """Write a package with a small attack or defense that works, to be made into yours.

    It has the method in one file, a test, a pyproject.toml with the entry point and a README. NAME
    is what specs will call the method.

    \b
    uebench new attack my_noise
    pip install -e 'my_noise[dev]' && python -m pytest my_noise
    uebench run --attacks none,my_noise --defenses standard
    """  # noqa: D301
    from ..suite.scaffold import write_package

    folder = write_package("attack" if kind == "attack" else "defense", name, Path(into))
    for path in sorted(folder.iterdir()):
        click.echo(path)
    called = name.replace("-", "_")
    click.echo(
        f"next: pip install -e {shlex.quote(f'{folder}[dev]')} && "
        f"python -m pytest {shlex.quote(str(folder))}, "
        f"then `uebench check {called}`",
        err=True,
    )


@click.command()
@click.argument("method", metavar="[NAME]", required=False, shell_complete=complete_method)
@click.option("--kind", type=KIND, help="Which one, where both an attack and a defense have NAME.")
@click.option("--quick", is_flag=True, help="Leave out large images, time and memory.")
@click.option(
    "--full", is_flag=True, help="Test an attack at its defaults, not with the fewest steps."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def check(method: str | None, kind: Any, quick: bool, full: bool, as_json: bool) -> None:
    """Test whether a method keeps what is promised of all, and say how to mend what fails.

    NAME may have options: em[eps=16/255]. With --plugin FILE and no NAME, every method in the file
    is tested. The exit status is 1 where something fails. The same tests are importable:
    `from uebench.testing import attack_conformance`.

    \b
    uebench check em
    uebench check my_noise[eps=16/255] --quick
    uebench check --plugin my_noise.py
    """  # noqa: D301
    chosen = _chosen(method, kind)
    told = [_check(its_kind, spec, quick, full, as_json) for its_kind, spec in chosen]
    if as_json:
        click.echo(json.dumps(told if method is None else told[0], indent=1))
    if not all(each["passed"] for each in told):
        raise SystemExit(1)


def _chosen(method: str | None, kind: Kind | None) -> list[tuple[Kind, str]]:
    """Return kind and spec of the methods that are meant.

    Raises:
        KeyError: no such method.
        ValueError: none is named, several are meant, bad options, or an imported poison.
    """
    from ..common.spec import IMPORTED, parse_spec
    from ..methods.registry import KINDS, absent, build, methods, plugin_files

    kinds = [kind] if kind else list(KINDS)
    if method is None:
        files = {f"file {path.name}" for path in plugin_files()}
        found = [
            (each, name)
            for each in kinds
            for name, cls in methods(each).items()
            if cls.info.origin in files
        ]
        if not found:
            what = "has no method" if files else "names nothing to check"
            raise UserError(f"check {what}; give NAME, or --plugin FILE with an @attack in it")
        return found
    name = parse_spec(method).name
    if name.startswith(IMPORTED):
        raise UserError(f"{name} has images and crafts none; `uebench audit` measures its file")
    having = [each for each in kinds if name in methods(each)]
    if not having:
        raise absent(kind or "method", name, [n for each in kinds for n in methods(each)])
    if len(having) > 1:
        raise UserError(f"{name} is an attack and a defense; add --kind attack or --kind defense")
    build(having[0], method)
    return [(having[0], method)]


def _check(kind: Kind, spec: str, quick: bool, full: bool, silent: bool) -> dict[str, Any]:
    """Test a method, printing what comes of it unless silent; return it as data."""
    from ..common.spec import parse_spec
    from ..methods.registry import find
    from ..testing import conform
    from ..testing.subject import Subject

    name = parse_spec(spec).name
    options = Subject.of(kind, spec, full).options_text
    outcomes = []

    def kept() -> Iterable[Outcome]:
        for outcome in conform(kind, spec, full=full, costly=not quick):
            outcomes.append(outcome)
            yield outcome

    if silent:
        list(kept())
    else:
        origin = find(kind, name).info.origin
        click.echo(f"{kind} {name} ({origin})" + (f", tested with {options}" if options else ""))
        told: set[str] = set()
        for _, group in groupby(kept(), key=lambda outcome: outcome.promise):
            _print_outcomes(list(group), told)
        failed = len({o.promise for o in outcomes if o.status == "failed"})
        of_all = len({o.promise for o in outcomes})
        click.echo(f"{of_all - failed} of {of_all} promises are kept")
    return {
        "method": name,
        "kind": kind,
        "tested_with": options,
        "passed": all(o.status == "passed" for o in outcomes),
        "outcomes": [asdict(o) for o in outcomes],
    }


def _print_outcomes(outcomes: list[Outcome], told: set[str]) -> None:
    """Print what came of one promise: a line where it is kept, else its failures with the mend.

    A fault fails many promises: it is told once, and `told` holds those that were.
    """
    from rich.table import Table
    from rich.text import Text

    failed = [o for o in outcomes if o.status == "failed"]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=4)
    table.add_column(width=14)
    table.add_column(overflow="fold")
    name = outcomes[0].promise
    if not failed:
        found = outcomes[0].found if len(outcomes) == 1 else f"on {len(outcomes)} data sets"
        table.add_row(Text("ok", "green"), Text(name), Text(found or outcomes[0].text))
    again = []
    for outcome in failed:
        fault = re.sub(r"[\d.]+", "#", outcome.found)  # sizes and seeds differ
        if fault in told:
            again.append(outcome.case)
            continue
        told.add(fault)
        where = f"{outcome.case}: " if outcome.case else ""
        table.add_row(Text("FAIL", "bold red"), Text(name), Text(f"{where}{outcome.found}"))
        table.add_row("", "", Text(f"to mend it: {outcome.mend}"))
    if again:
        on = f", on {', '.join(again)}" if all(again) else ""
        table.add_row(Text("FAIL", "bold red"), Text(name), Text(f"the same as above{on}"))
    stdout_console().print(table)
