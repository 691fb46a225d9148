"""The command line. Data goes to stdout, progress and messages to stderr.

Exit status: 0 all is well; 1 some cells failed; 2 the command was wrong, and nothing was written.
torch is loaded by the verbs that need it, so that `--help` does not wait for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from . import __version__
from .cli_poison import audit, craft, import_
from .cli_report import plot, report
from .cli_shared import clear_errors, data_options, plugin_option

KINDS = ("attacks", "defenses", "datasets", "models", "protocols", "configs")


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Turn a store that fails during a run into one sentence and exit status 1."""
    from .store import StoreError

    try:
        yield
    except StoreError as error:
        click.echo(f"stopped: {error}; what is done is kept, type the command again", err=True)
        raise SystemExit(1) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="uebench")
def main() -> None:
    """Benchmark unlearnable-example attacks against the defenses that learn anyway.

    \b
    uebench run                                            the default matrix
    uebench run --attacks em,lsp --defenses ueraser,at     a matrix of your own
    uebench list attacks                                   what there is
    uebench show attack em                                 a method and its options
    """  # noqa: D301
    logging.basicConfig(format="uebench: %(message)s", level=logging.WARNING, stream=sys.stderr)


for _verb in (craft, audit, import_, report, plot):
    main.add_command(_verb)


@main.command()
@click.argument("config", required=False)
@click.option("--attacks", metavar="LIST", help="Attacks, such as none,em[eps=16/255],lsp.")
@click.option("--defenses", metavar="LIST", help="Defenses, such as standard,ueraser,at.")
@click.option("--dataset", multiple=True, metavar="NAME", help="Data set; may be repeated.")
@click.option("--arch", metavar="LIST", help="Target networks, such as resnet9[width=8],resnet18.")
@click.option("--protocol", metavar="NAME", help="quick, sprint or paper.")
@click.option("--epochs", type=int, metavar="N", help="Epochs of the target models' training.")
@click.option("--seeds", metavar="LIST", help="Training seeds, such as 0,1,2.")
@click.option("--poison-seeds", metavar="LIST", help="Seeds that poisons are crafted from.")
@click.option("--ratio", metavar="LIST", help="Share of poisoned training images, such as 0.5,1.")
@click.option("--classes", metavar="LIST", help="Classes that are poisoned, by name or number.")
@click.option(
    "--craft-on",
    type=click.Choice(["all", "subset"]),
    help="Give attacks all training images (the default), or the poisoned ones alone.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME.OPTION=VALUE",
    help="An option of a method (em.rounds=5) or of the protocol (protocol.lr=0.05).",
)
@click.option("--out", metavar="FOLDER", help="Results folder. Default: results/CONFIG or a hash.")
@click.option(
    "--executor", type=click.Choice(["local"]), default="local", help="What starts the processes."
)
@click.option("--jobs", type=click.IntRange(1, 4096), help="Cells side by side.")
@click.option("--dry-run", is_flag=True, help="Print the plan and how long it takes; run nothing.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@data_options
@plugin_option
def run(
    config: str | None, out: str | None, executor: str, jobs: int | None, **options: Any
) -> None:
    """Run a matrix: CONFIG is a YAML file or a name (see `uebench list configs`).

    Flags replace fields of CONFIG; without CONFIG and flags, `quick` is run. What was computed
    before is not computed again, so a run that was stopped goes on where it was.
    """
    with clear_errors():
        from . import frontend, plan, results

        fields = _fields(config, options)
        made = plan.make_config(fields)
        matrix = frontend.prepare(
            made,
            options["device"],
            jobs,
            options["data_dir"],
            options["download"],
        )
        if options["dry_run"]:
            from .estimate import print_estimate

            print_estimate(matrix)
            return
        folder = Path(out) if out else _default_folder(config, options, matrix.cells)
        results.check_folder(folder)
    with _store_errors():
        _run_and_print(matrix, folder, options["quiet"])


def _run_and_print(matrix: Any, folder: Path, quiet: bool) -> None:
    """Run a prepared matrix, write its folder and print its table; exit 1 where cells failed."""
    from . import frontend, plan
    from .report import leaderboards, to_rich

    known = sum(matrix.store.has("cell", cell.key) for cell in matrix.cells)
    if not quiet:
        click.echo(
            f"{len(matrix.cells)} cells, {known} of them known, {matrix.jobs} at a time on "
            f"{', '.join(matrix.devices)}",
            err=True,
        )
    try:
        outcome = frontend.execute(matrix, quiet)
    except KeyboardInterrupt:
        done = sum(matrix.store.has("cell", cell.key) for cell in matrix.cells)
        click.echo(
            f"stopped: {done} of {len(matrix.cells)} cells are kept; "
            "type the same command again to go on",
            err=True,
        )
        raise SystemExit(130) from None
    frontend.save(matrix, outcome, folder, ["uebench", *sys.argv[1:]])
    boards = leaderboards(outcome.cells)
    _print_rich(to_rich(boards, plan.table_titles(matrix.cells)))
    if not quiet:
        click.echo(f"{outcome.seconds:.0f} s; results are in {folder}", err=True)
    lost = outcome.cells[outcome.cells["status"] != "ok"]
    if len(lost):
        reasons = dict.fromkeys(lost["error"])
        click.echo(f"{len(lost)} cells failed: " + "; ".join(reasons), err=True)
        raise SystemExit(1)


def _print_rich(renderable: Any) -> None:
    """Print to stdout: as wide as the terminal, or as wide as it needs off one."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(renderable)


def _fields(config: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration's fields with those that flags replace."""
    from .plan import make_config, read_config
    from .spec import parse_spec

    own = any(options[name] for name in ("attacks", "defenses", "dataset", "arch", "protocol"))
    # whoever names a part of the matrix wants true defaults, not the small default matrix's
    fields = {} if config is None and own else read_config(config or "quick")
    if options["dataset"]:
        fields["dataset"] = list(options["dataset"])
    names = ("attacks", "defenses", "arch", "protocol", "seeds", "poison_seeds", "ratio", "classes")
    for name in (*names, "craft_on"):
        if options[name] is not None:
            fields[name] = options[name]
    protocol = _mapping(fields, "protocol_options")
    methods = _mapping(fields, "set")
    if options["attacks"] is not None or options["defenses"] is not None:
        # what the configuration sets for methods that flags took away is no mistake of the user's
        kept = make_config({**fields, "set": {}, "protocol_options": {}})
        there = [parse_spec(spec).name for spec in (*kept.attacks, *kept.defenses)]
        methods = {k: v for k, v in methods.items() if str(k).partition(".")[0] in there}
    for text in options["sets"]:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text} is not NAME.OPTION=VALUE; write it like em.rounds=5")
        if key.startswith("protocol."):
            protocol[key.removeprefix("protocol.")] = value
        else:
            methods[key] = value
    if options["epochs"] is not None:
        protocol["epochs"] = options["epochs"]
    return {**fields, "protocol_options": protocol, "set": methods}


def _mapping(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a field of names and values.

    Raises:
        ValueError: it is something else.
    """
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be names and values such as {{a: 1}}, got {value!r}")
    return dict(value)


def _default_folder(config: str | None, options: dict[str, Any], cells: Any) -> Path:
    """Return results/NAME for a configuration as it is, else results/run-HASH of the matrix."""
    from .store import key_of

    replaced = [
        key
        for key, value in options.items()
        if value and key not in ("device", "data_dir", "download", "quiet", "dry_run")
    ]
    if not replaced:
        return Path("results") / Path(config or "quick").stem
    return Path("results") / f"run-{key_of({'cells': [cell.key for cell in cells]})[:8]}"


@main.command("list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def list_(kind: str | None, as_json: bool) -> None:
    """List attacks, defenses, data sets, models, protocols or configurations."""
    with clear_errors():
        from .catalog import catalog, print_catalog

        found = catalog([kind] if kind else list(KINDS))
        if as_json:
            click.echo(json.dumps(found[kind] if kind else found, indent=1))
        else:
            print_catalog(found)


@main.command()
@click.argument("kind", type=click.Choice(["attack", "defense", "protocol"]))
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def show(kind: str, name: str, as_json: bool) -> None:
    """Show a method or a protocol: what it does, its source, its options with their ranges."""
    with clear_errors():
        from .catalog import describe, print_description

        found = describe(kind, name)
        if as_json:
            click.echo(json.dumps(found, indent=1))
        else:
            print_description(found)


@main.command()
@click.argument("results", type=click.Path())
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "latex", "markdown", "json"]),
    default="text",
)
@click.option("--best", is_flag=True, help="The best epoch's accuracy instead of the last one's.")
def table(results: str, form: str, best: bool) -> None:
    """Print the leaderboard of a results folder or a cells.csv."""
    with clear_errors():
        from . import report

        boards = report.leaderboards(
            report.read_cells(Path(results)), "test_acc_best" if best else "test_acc"
        )
        titles = _titles()
        if form == "text":
            _print_rich(report.to_rich(boards, titles))
        elif form == "latex":
            click.echo(report.to_latex(boards, titles), nl=False)
        elif form == "markdown":
            click.echo(report.to_markdown(boards, titles), nl=False)
        else:
            click.echo(report.to_csv(boards) if form == "csv" else report.to_json(boards), nl=False)


def _titles() -> dict[str, str]:
    """Return how every known method is called in tables."""
    from .registry import KINDS, methods

    return {name: cls.info.title for kind in KINDS for name, cls in methods(kind).items()}


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine has, what will be slow, and whether torch and torchvision fit."""
    from .doctor import examine, print_findings

    findings = examine()
    if as_json:
        click.echo(json.dumps(findings, indent=1))
    else:
        print_findings(findings)
    if any(f["level"] == "bad" for f in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="uebench")
