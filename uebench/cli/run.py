"""The verb that computes a matrix: `uebench run`."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ..common.text import counted
from .completion import complete_config
from .matrix import matrix_fields, matrix_flags, matrix_options, take_flags_from_config
from .shared import data_options, echo, options_of, plugin_option, quiet_option, starting
from .table import print_detection, print_run

if TYPE_CHECKING:
    from ..suite.matrix import Matrix, RunOutcome

_RESUME = "finished cells are kept; run the same command again to continue"

executor_options = options_of(
    click.option(
        "--deterministic",
        is_flag=True,
        help="Use slower GPU kernels whose results are reproducible bit for bit; each record "
        "names the operations that have none. CPUs are always reproducible.",
    ),
    click.option(
        "--keep-models",
        is_flag=True,
        help="Write the weights of target models and their records into FOLDER/models; cells "
        "whose model is not in the store are trained again.",
    ),
    click.option(
        "--log",
        type=click.Choice(["tensorboard"]),
        help="Write the curves of all cells into FOLDER/tensorboard.",
    ),
    click.option(
        "--stop-after",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MINUTES",
        help="Stop the run this long after its first cell started. Cells are computed in the "
        "order of the matrix; those not reached get the status `skipped`, the exit status is "
        "1, and the same command continues the run.",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MINUTES",
        help="Time limit for each cell and each poison; one that takes longer fails.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1, 4096),
        help="Number of cells computed at the same time; with slurm, of jobs in the queue.",
    ),
    click.option(
        "--executor",
        metavar="NAME[OPTION=VALUE,...]",
        default="local",
        help="Where cells are computed: local, ray or slurm, with options such as "
        "ray[gpus=0.25]; `uebench show executor slurm` lists them.",
    ),
)


@click.command("run")
@click.argument(
    "config",
    required=False,
    is_eager=True,
    callback=take_flags_from_config,
    shell_complete=complete_config,
)
@matrix_options
@click.option(
    "--out",
    metavar="FOLDER",
    help="Folder for the results; by default results/CONFIG, or results/run-HASH if flags change "
    "the matrix.",
)
@click.option(
    "--reuse",
    multiple=True,
    metavar="FOLDER",
    help="Take cells from a results folder, a bundle or a folder of them; may be repeated.",
)
@executor_options
@click.option(
    "--detect",
    is_flag=True,
    help="Also ask detectors about every poison: linear, edge_pixels and noise, which take seconds "
    "to minutes each, or those of --detectors.",
)
@click.option(
    "--detectors",
    metavar="SPECS",
    help="With --detect, the detectors to ask; see `uebench detect --help`.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate; compute nothing.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON.")
@click.option("--compare", is_flag=True, help="Also print a comparison with published numbers.")
@data_options
@plugin_option
def run_verb(
    config: str | None,
    out: str | None,
    as_json: bool,
    compare: bool,
    detect: bool,
    detectors: str | None,
    **options: Any,
) -> None:
    """Compute every cell of a matrix and print its leaderboard.

    CONFIG is a YAML file or one of the names in `uebench list configs`; flags replace its fields,
    and it may set every flag under the flag's name.
    Without CONFIG, `quick` is run. A flag that names attacks, defenses, victims, a data set, a
    network or a protocol starts a matrix of your own instead, in which attacks default to
    none,em,lsp,ar and defenses to standard,ueraser,iss,at. Finished cells are never computed again,
    so the same command continues a run that was stopped.

    \b
    uebench run
    uebench run --attacks em[eps=16/255],lsp --defenses ueraser,at --seeds 0,1,2
    uebench run --dataset cifar10 --download --protocol paper --dry-run
    uebench run --attacks em,mine --plugin mine.py --reuse results/em
    """  # noqa: D301
    with starting():
        from ..cells.results import check_folder
        from ..suite.detect_poisons import asked_detectors, check_all_detectable, detect_poisons
        from ..suite.run import save

    asked = asked_detectors(detect, detectors)
    matrix = _planned(config, options)
    if asked:
        check_all_detectable(matrix)
    if options["dry_run"]:
        from ..suite.estimate import print_estimate

        print_estimate(matrix)
        return
    folder = Path(out) if out else _default_folder(config, options, matrix)
    check_folder(folder)
    matrix.store.check_writable()
    quiet = options["quiet"]
    with _stopped_by_faults():
        if not quiet:
            _print_start(matrix)
        outcome = _execute(matrix, quiet)
        if asked:
            detection = detect_poisons(matrix, outcome.failures, asked, quiet)
            outcome = replace(outcome, detection=detection)
        save(matrix, outcome, folder, ["uebench", *sys.argv[1:]])
        _print_outcome(matrix, outcome, as_json, compare)
        _print_end(matrix, outcome, folder, quiet, warn=as_json)


def _planned(config: str | None, options: dict[str, Any]) -> Matrix:
    """Return the planned matrix that CONFIG and the flags describe."""
    from ..cells.config import make_config
    from ..suite.run import prepare

    def in_seconds(minutes: float | None) -> float | None:
        return None if minutes is None else 60 * minutes

    return prepare(
        make_config(matrix_fields(config, options)),
        options["device"],
        options["jobs"],
        options["data_dir"],
        options["download"],
        executor=options["executor"],
        time_limit_s=in_seconds(options["time_limit"]),
        stop_after_s=in_seconds(options["stop_after"]),
        deterministic=options["deterministic"],
        keep_models=options["keep_models"],
        log=options["log"],
        outline=options["dry_run"],
        reuse=options["reuse"],
    )


@contextlib.contextmanager
def _stopped_by_faults() -> Iterator[None]:
    """Report a store, cluster, memory or disk that fails during a run; the exit status is 1."""
    from ..execute.base import ExecutorError
    from ..store.store import NO_ROOM, StoreError

    try:
        yield
    except ExecutorError as error:
        reason = str(error)
    except StoreError as error:
        reason = f"{error}; {_RESUME}"
    except MemoryError as error:
        reason = (
            f"out of memory ({error or 'more was needed than is available'}); free memory or raise "
            f"the limit (ulimit); {_RESUME}"
        )
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = f" {error.filename}" if error.filename else ""
        reason = f"cannot write{place}: {error.strerror}; free some space; {_RESUME}"
    else:
        return
    click.echo(f"stopped: {reason}", err=True)
    raise SystemExit(1)


def _print_start(matrix: Matrix) -> None:
    from ..cells.determinism import n_irreproducible
    from ..suite.run import reused_in_words

    executor = f" by {matrix.executor.name}" if matrix.executor.name != "local" else ""
    click.echo(
        f"{counted(len(matrix.cells), 'cell')}, {_n_finished(matrix)} already computed; running "
        f"{matrix.jobs} at a time on {', '.join(matrix.devices)}{executor}",
        err=True,
    )
    if matrix.reused:
        echo(f"{reused_in_words(matrix)}; their records are copied into the store", err=True)
    if matrix.deterministic and (n_free := n_irreproducible(matrix.cells, matrix.records)):
        click.echo(
            f"{n_free} of the computed cells may not be reproducible bit for bit: they were "
            "computed without --deterministic, or use an operation that has no such kernel. They "
            "are not computed again; their records give the reason",
            err=True,
        )


def _execute(matrix: Matrix, quiet: bool) -> RunOutcome:
    """Compute a matrix; a signal or a full disk ends the process and says how to resume."""
    from ..store.store import FullError
    from ..suite import run as suite_run

    try:
        with _ended_by_signals():
            return suite_run.execute(matrix, quiet)
    except (KeyboardInterrupt, FullError) as error:
        reason = f"{error}; " if isinstance(error, FullError) else ""
        matrix.records.look_again()
        click.echo(
            f"stopped: {reason}{_n_finished(matrix)} of {len(matrix.cells)} cells are finished; "
            "run the same command again to continue",
            err=True,
        )
        raise SystemExit(1 if reason else 130) from None


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, or SIGHUP from a closed terminal, end a run as Ctrl-C does.

    Python's default action would end this process at once and leave its workers running.
    """

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {}
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _n_finished(matrix: Matrix) -> int:
    return sum(matrix.records.cell(cell) is not None for cell in matrix.cells)


def _print_outcome(matrix: Matrix, outcome: RunOutcome, as_json: bool, compare: bool) -> None:
    """Print a run's table to stdout, and a warning if its cells come from several versions."""
    from ..cells.plan import table_titles
    from ..cells.results import version_warning
    from ..report import leaderboards, to_json

    if as_json:
        click.echo(to_json(leaderboards(outcome.cells)))
    else:
        print_run(matrix.config, matrix.cells, outcome.cells, compare)
        print_detection(outcome.detection, table_titles(matrix.cells))
    if warning := version_warning(outcome.cells):
        click.echo(warning, err=True)


def _print_end(matrix: Matrix, outcome: RunOutcome, folder: Path, quiet: bool, warn: bool) -> None:
    """Print what a run showed and what to type next; exit with status 1 if cells are missing.

    `warn` is whether no table has printed the warnings about the numbers.
    """
    from ..cells.plan import table_titles
    from ..report import leaderboards, summary, unlearned

    failed = outcome.cells[outcome.cells["status"] == "failed"]
    n_skipped = int((outcome.cells["status"] == "skipped").sum())
    if not quiet:
        boards = leaderboards(outcome.cells)
        for line in summary(boards, table_titles(matrix.cells), warn=warn):
            echo(line, err=True)
        learned = not any(unlearned(board) for board in boards)
        echo(f"finished in {outcome.seconds:.0f} s; the results are in {folder}", err=True)
        echo(f"next: {_next(folder, matrix, len(failed), n_skipped, learned)}", err=True)
    if len(failed):
        cells = counted(len(failed), "cell")
        reasons = "; ".join(dict.fromkeys(failed["error"]))
        echo(f"{cells} failed (tracebacks are in {folder / 'run.json'}): {reasons}", err=True)
    if n_skipped:
        count = f"{n_skipped} of {len(matrix.cells)} cells"
        if limit_s := matrix.stop_after_s:
            reason = f"were not reached in {limit_s / 60:g} min (--stop-after)"
        else:  # computed or found at the start, and then removed by somebody else, or spoiled
            reason = "are missing: their results disappeared from the store during the run"
        click.echo(f"{count} {reason}; run the same command again to continue", err=True)
    if len(failed) or n_skipped:
        raise SystemExit(1)


def _next(folder: Path, matrix: Matrix, n_failed: int, n_skipped: int, learned: bool) -> str:
    """Return a command, or an advice with it, that makes sense after these results.

    `learned` is whether the models learned at least from clean data.
    """
    typed = shlex.join(["uebench", *sys.argv[1:]])
    if n_failed:
        return (
            "fix the failures and run the same command again; finished cells are reused: " + typed
        )
    if n_skipped:
        return typed
    if not learned:
        longer = str(2 * max(cell.usual_epochs or cell.protocol.epochs for cell in matrix.cells))
        return shlex.join(["uebench", *_without("--epochs", sys.argv[1:]), "--epochs", longer])
    if len(matrix.config.seeds) == 1 and sys.argv[1:2] == ["run"] and "--seeds" not in typed:
        return f"{typed} --seeds 0,1,2"
    return f"uebench publish {shlex.quote(str(folder))} FOLDER"


def _without(flag: str, words: Sequence[str]) -> list[str]:
    """Return the words of a command without a flag and its value."""
    kept: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == flag:
            next(remaining, None)
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def _default_folder(config: str | None, options: dict[str, Any], matrix: Matrix) -> Path:
    """Return results/NAME for an unchanged configuration, else results/run-HASH of the cells."""
    from ..store.store import key_of

    if not matrix_flags(options):
        return Path("results") / Path(config or "quick").stem
    return Path("results") / f"run-{key_of({'cells': [cell.key for cell in matrix.cells]})[:8]}"
