"""The verbs for authors of methods: new, check."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import UserError
from ..common.text import stdout_console
from .completion import complete_method
from .shared import echo, json_option, plugin_option

if TYPE_CHECKING:
    from ..methods.registry import Kind
    from ..testing import Outcome

_KIND = click.Choice(["attack", "defense", "victim"])


@click.command()
@click.argument("kind", type=_KIND)
@click.argument("name")
@click.option(
    "--into",
    metavar="FOLDER",
    default=".",
    help="Existing folder in which the package's folder is created.",
)
def new(kind: str, name: str, into: str) -> None:
    """Create a package with a small, working method of your own.

    Turn it into your own. The package has the method in one file, a test, a pyproject.toml with the
    entry point, and a README. NAME is the method's name on the command line and in configurations.

    \b
    uebench new attack my_noise
    pip install -e 'my_noise[dev]' && python -m pytest my_noise
    uebench run --attacks none,my_noise --defenses standard
    """  # noqa: D301
    from ..methods.registry import KINDS
    from ..suite.scaffold import write_package

    folder = write_package(next(each for each in KINDS if each == kind), name, Path(into))
    for path in sorted(folder.iterdir()):
        echo(path)
    echo(
        f"next: pip install -e {shlex.quote(f'{folder}[dev]')} && "
        f"python -m pytest {shlex.quote(str(folder))}, "
        f"then `uebench check {folder.name}`",
        err=True,
    )


@click.command()
@click.argument("method", metavar="[NAME]", required=False, shell_complete=complete_method)
@click.option("--kind", type=_KIND, help="Needed if methods of several kinds are called NAME.")
@click.option("--quick", is_flag=True, help="Skip the tests of large images, time and memory.")
@click.option(
    "--full",
    is_flag=True,
    help="Test a method with its default options, not with the fewest steps.",
)
@json_option
@plugin_option
def check(method: str | None, kind: Any, quick: bool, full: bool, as_json: bool) -> None:
    """Test whether a method does what every method must do.

    Each failure comes with a remedy, and the exit status is 1 if there is one. NAME may have
    options, such as em[eps=16/255]; with --plugin FILE and no NAME, every method in the file is
    tested. Test suites can import the same tests: `from uebench.testing import attack_conformance`.

    \b
    uebench check em
    uebench check my_noise[eps=16/255] --quick
    uebench check --plugin my_noise.py
    """  # noqa: D301
    chosen = _chosen(method, kind)
    reports = [_check(its_kind, spec, quick, full, as_json) for its_kind, spec in chosen]
    if as_json:
        click.echo(json.dumps(reports if method is None else reports[0], indent=1))
    if not all(report["passed"] for report in reports):
        raise SystemExit(1)


def _chosen(method: str | None, kind: Kind | None) -> list[tuple[Kind, str]]:
    """Return kind and spec of each method to test."""
    from ..common.names import MIXTURE
    from ..common.spec import IMPORTED, PURIFIED, parse_spec
    from ..methods.registry import KINDS, absent, build, methods, plugin_files

    kinds = [kind] if kind else list(KINDS)
    if method is None:
        files = {f"file {path.name}" for path in plugin_files()}
        in_files = [
            (each, name)
            for each in kinds
            for name, cls in methods(each).items()
            if cls.info.origin in files
        ]
        if not in_files:
            problem = "found no method in the file" if files else "needs something to check"
            raise UserError(f"check {problem}; give NAME, or --plugin FILE with an @attack in it")
        return in_files
    name = parse_spec(method).name
    if name.startswith((IMPORTED, PURIFIED)):
        raise UserError(
            f"{name} is a fixed set of images, which computes nothing; `uebench audit` measures "
            "its file"
        )
    if name == MIXTURE:
        raise UserError(f"{name} puts the poisons of other attacks together; check those")
    kinds_of_name = [each for each in kinds if name in methods(each)]
    if not kinds_of_name:
        raise absent(kind or "method", name, [n for each in kinds for n in methods(each)])
    if len(kinds_of_name) > 1:
        raise UserError(
            f"{name} is the name of {' and of '.join(kinds_of_name)}; add --kind "
            f"{' or --kind '.join(kinds_of_name)}"
        )
    build(kinds_of_name[0], method)  # refuses wrong options before anything is tested
    return [(kinds_of_name[0], method)]


def _check(kind: Kind, spec: str, quick: bool, full: bool, silent: bool) -> dict[str, Any]:
    """Test a method and return the report as data; print it as it grows unless silent."""
    from ..common.spec import parse_spec
    from ..methods.registry import find
    from ..testing import conform
    from ..testing.subject import Subject

    name = parse_spec(spec).name
    options = Subject.of(kind, spec, full).options_text
    if not silent:
        origin = find(kind, name).info.origin
        click.echo(f"{kind} {name} ({origin})" + (f", tested with {options}" if options else ""))
    outcomes: list[Outcome] = []
    printed_faults: set[str] = set()
    stream = conform(kind, spec, full=full, costly=not quick)
    for _, group in groupby(stream, key=lambda outcome: outcome.promise):
        of_promise = list(group)
        outcomes += of_promise
        if not silent:
            _print_outcomes(of_promise, printed_faults)
    if not silent:
        n_failed = len({o.promise for o in outcomes if o.status == "failed"})
        n_all = len({o.promise for o in outcomes})
        click.echo(f"{n_all - n_failed} of {n_all} promises are kept")
    return {
        "method": name,
        "kind": kind,
        "tested_with": options,
        "passed": all(o.status == "passed" for o in outcomes),
        "outcomes": [asdict(o) for o in outcomes],
    }


def _print_outcomes(outcomes: list[Outcome], printed_faults: set[str]) -> None:
    """Print the outcomes of one promise: one line if it is kept, else each failure and its remedy.

    One fault can break many promises; it is printed once and then added to `printed_faults`.
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
        measured = outcomes[0].measured if len(outcomes) == 1 else f"on {len(outcomes)} data sets"
        table.add_row(Text("ok", "green"), Text(name), Text(measured or outcomes[0].text))
    repeated = []
    for outcome in failed:
        # the same fault shows other sizes and seeds
        fault = re.sub(r"[\d.]+", "#", outcome.measured)
        if fault in printed_faults:
            repeated.append(outcome.case)
            continue
        printed_faults.add(fault)
        case = f"{outcome.case}: " if outcome.case else ""
        table.add_row(Text("FAIL", "bold red"), Text(name), Text(f"{case}{outcome.measured}"))
        table.add_row("", "", Text(f"to fix it: {outcome.remedy}"))
    if repeated:
        on = f", on {', '.join(repeated)}" if all(repeated) else ""
        table.add_row(Text("FAIL", "bold red"), Text(name), Text(f"the same as above{on}"))
    stdout_console().print(table)
