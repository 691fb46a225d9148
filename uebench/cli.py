"""The command line. Data goes to stdout, progress and messages to stderr.

Exit status: 0 all is well; 1 some cells failed; 2 the command was wrong, and nothing was written.
torch is loaded by the verbs that need it, so that `--help` does not wait for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from . import __version__
from .cli_executor import ended_by_signals, executor_options
from .cli_group import Verbs
from .cli_kit import check, new
from .cli_poison import audit, craft, import_
from .cli_share import card, publish, validate
from .cli_shared import COMMAND, clear_errors, data_options, plugin_option, stdout_console
from .cli_store import store_group
from .cli_verify import verify
from .completing import complete, complete_config, complete_list, complete_method, completion

KINDS = ("attacks", "defenses", "datasets", "models", "protocols", "configs", "executors")


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Turn a store or cluster that fails in a run into one sentence and exit status 1."""
    from .execute import ExecutorError
    from .store import NO_ROOM, StoreError

    try:
        yield
    except ExecutorError as error:
        click.echo(f"stopped: {error}", err=True)
        raise SystemExit(1) from None
    except StoreError as error:
        click.echo(f"stopped: {error}; what is done is kept, type the command again", err=True)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = f" {error.filename}" if error.filename else ""
        click.echo(
            f"stopped: cannot write{place}: {error.strerror}; free space and type the command "
            "again, what is computed is kept",
            err=True,
        )
        raise SystemExit(1) from None


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="uebench")
def main() -> None:
    """Benchmark unlearnable-example attacks against the defenses that learn anyway.

    \b
    uebench run                                            the default matrix
    uebench run --attacks em,lsp --defenses ueraser,at     a matrix of your own
    uebench list attacks                                   what there is
    uebench show attack em                                 a method and its options
    """  # noqa: D301
    os.environ[COMMAND] = json.dumps(["uebench", *sys.argv[1:]])
    logging.basicConfig(format="uebench: %(message)s", level=logging.WARNING, stream=sys.stderr)


for _verb in (
    *(craft, audit, import_, store_group, verify),
    *(new, check, completion, publish, validate, card),
):
    main.add_command(_verb)


@main.command()
@click.argument("config", required=False, shell_complete=complete_config)
@click.option(
    "--attacks",
    metavar="LIST",
    shell_complete=complete_list("attacks"),
    help="Attacks, such as none,em[eps=16/255],lsp.",
)
@click.option(
    "--defenses",
    metavar="LIST",
    shell_complete=complete_list("defenses"),
    help="Defenses, such as standard,ueraser,at.",
)
@click.option(
    "--dataset",
    multiple=True,
    metavar="NAME",
    shell_complete=complete("datasets"),
    help="Data set; may be repeated.",
)
@click.option(
    "--arch",
    metavar="LIST",
    shell_complete=complete_list("models"),
    help="Target networks, such as resnet9[width=8],resnet18.",
)
@click.option(
    "--protocol",
    metavar="NAME",
    shell_complete=complete("protocols"),
    help="quick, sprint, paper or transfer.",
)
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
@executor_options
@click.option("--dry-run", is_flag=True, help="Print the plan and how long it takes; run nothing.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON.")
@data_options
@plugin_option
def run(
    config: str | None,
    out: str | None,
    executor: str,
    jobs: int | None,
    time_limit: float | None,
    deterministic: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a matrix: CONFIG is a YAML file or a name (see `uebench list configs`).

    Flags replace fields of CONFIG; without CONFIG and flags, `quick` is run. What was computed
    before is not computed again, so a run that was stopped goes on where it was.

    \b
    uebench run
    uebench run --attacks em[eps=16/255],lsp --defenses ueraser,at --seeds 0,1,2
    uebench run --dataset cifar10 --download --protocol paper --dry-run
    """  # noqa: D301
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
            executor=executor,
            time_limit_s=None if time_limit is None else 60 * time_limit,
            deterministic=deterministic,
        )
        if options["dry_run"]:
            from .estimate import print_estimate

            print_estimate(matrix)
            return
        folder = Path(out) if out else _default_folder(config, options, matrix.cells)
        results.check_folder(folder)
    with _store_errors():
        _run_and_print(matrix, folder, options["quiet"], as_json)


def _run_and_print(matrix: Any, folder: Path, quiet: bool, as_json: bool) -> None:
    """Run a prepared matrix, write its folder and print its table; exit 1 where cells failed."""
    from . import frontend, plan
    from .determinism import unpromised
    from .report import leaderboards, summary, to_json, to_rich
    from .results import told_versions

    known = sum(matrix.store.has("cell", cell.key) for cell in matrix.cells)
    if not quiet:
        click.echo(
            f"{len(matrix.cells)} cells, {known} of them known, {matrix.jobs} at a time on "
            f"{', '.join(matrix.devices)}"
            + (f" by {matrix.executor.name}" if matrix.executor.name != "local" else ""),
            err=True,
        )
        if matrix.deterministic and (n_free := unpromised(matrix.cells, matrix.store)):
            click.echo(
                f"{n_free} of the known cells were computed without --deterministic, or cannot be "
                "promised; they stay as they are, and their records say why",
                err=True,
            )
    try:
        with ended_by_signals():
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
    boards, titles = leaderboards(outcome.cells), plan.table_titles(matrix.cells)
    if as_json:
        click.echo(to_json(boards))
    else:
        _print_rich(to_rich(boards, titles))
    _warn(told_versions(outcome.cells))
    lost = outcome.cells[outcome.cells["status"] != "ok"]
    if not quiet:
        for line in summary(boards, titles):
            click.echo(line, err=True)
        click.echo(f"{outcome.seconds:.0f} s; results are in {folder}", err=True)
        click.echo(f"next: {_next(folder, len(matrix.config.seeds), bool(len(lost)))}", err=True)
    if len(lost):
        reasons = dict.fromkeys(lost["error"])
        click.echo(f"{len(lost)} cells failed: " + "; ".join(reasons), err=True)
        raise SystemExit(1)


def _warn(sentence: str | None) -> None:
    """Say a sentence on stderr, where there is one to say."""
    if sentence:
        click.echo(sentence, err=True)


def _next(folder: Path, n_seeds: int, lost: bool) -> str:
    """Return the command that a reader of these results may want to type."""
    typed = shlex.join(["uebench", *sys.argv[1:]])
    if lost:
        return f"mend what failed, then the same again; only that is computed: {typed}"
    if n_seeds == 1 and sys.argv[1:2] == ["run"] and "--seeds" not in typed:
        return f"{typed} --seeds 0,1,2"
    return f"uebench publish {shlex.quote(str(folder))} FOLDER"


def _print_rich(renderable: Any) -> None:
    """Print to stdout: as wide as the terminal, or as wide as it needs off one."""
    stdout_console().print(renderable)


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
    """List attacks, defenses, data sets, models, protocols, configurations or executors.

    \b
    uebench list
    uebench list attacks --json
    """  # noqa: D301
    with clear_errors():
        from .catalog import catalog, print_catalog

        found = catalog([kind] if kind else list(KINDS))
        if as_json:
            click.echo(json.dumps(found[kind] if kind else found, indent=1))
        else:
            print_catalog(found)


@main.command()
@click.argument("kind", type=click.Choice(["attack", "defense", "protocol", "executor"]))
@click.argument("name", shell_complete=complete_method)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def show(kind: str, name: str, as_json: bool) -> None:
    """Show a method, protocol or executor: what it does, its options with their ranges.

    \b
    uebench show attack em
    uebench show protocol paper
    """  # noqa: D301
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
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--best", is_flag=True, help="The best epoch's accuracy instead of the last one's.")
def table(results: str, form: str, as_json: bool, best: bool) -> None:
    """Print the leaderboard of a results folder or a cells.csv.

    \b
    uebench table results/quick
    uebench table results/quick --format latex --best
    """  # noqa: D301
    with clear_errors():
        from . import report
        from .results import told_versions

        cells = report.read_cells(Path(results))
        boards = report.leaderboards(cells, "test_acc_best" if best else "test_acc")
        _warn(told_versions(cells))
        titles = _titles()
        form = "json" if as_json else form
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
    """Say what this machine has, what will be slow, and whether torch and torchvision fit.

    \b
    uebench doctor
    uebench doctor --json
    """  # noqa: D301
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
