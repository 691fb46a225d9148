"""The verb that computes a matrix: `uebench run`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .completion import complete_config
from .executor import ended_by_signals, executor_options
from .matrix import matrix_fields, matrix_options
from .shared import data_options, plugin_option, starting
from .table import print_run


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Turn a store or cluster that fails in a run into one sentence and exit status 1."""
    from ..execute.base import ExecutorError
    from ..store.store import NO_ROOM, StoreError

    try:
        yield
    except ExecutorError as error:
        click.echo(f"stopped: {error}", err=True)
        raise SystemExit(1) from None
    except StoreError as error:
        click.echo(f"stopped: {error}; what is done is kept, type the command again", err=True)
        raise SystemExit(1) from None
    except MemoryError as error:
        click.echo(
            f"stopped: out of memory ({error or 'no more is given'}); what is done is kept, free "
            "memory or raise the limit (ulimit) and type the command again",
            err=True,
        )
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


@click.command()
@click.argument("config", required=False, shell_complete=complete_config)
@matrix_options
@click.option("--out", metavar="FOLDER", help="Results folder. Default: results/CONFIG or a hash.")
@executor_options
@click.option("--dry-run", is_flag=True, help="Print the plan and how long it takes; run nothing.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON.")
@click.option("--compare", is_flag=True, help="Print what was published beside ours at the end.")
@data_options
@plugin_option
def run(
    config: str | None,
    out: str | None,
    executor: str,
    jobs: int | None,
    time_limit: float | None,
    stop_after: float | None,
    deterministic: bool,
    as_json: bool,
    compare: bool,
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
    with starting():
        from ..cells import plan, results
        from ..suite import run as frontend

    made = plan.make_config(matrix_fields(config, options))
    matrix = frontend.prepare(
        made,
        options["device"],
        jobs,
        options["data_dir"],
        options["download"],
        executor=executor,
        time_limit_s=None if time_limit is None else 60 * time_limit,
        stop_after_s=None if stop_after is None else 60 * stop_after,
        deterministic=deterministic,
        outline=options["dry_run"],
    )
    if options["dry_run"]:
        from ..suite.estimate import print_estimate

        print_estimate(matrix)
        return
    folder = Path(out) if out else _default_folder(config, options, matrix.cells)
    results.check_folder(folder)
    with _store_errors():
        _run_and_print(matrix, folder, options["quiet"], as_json, compare)


def _run_and_print(matrix: Any, folder: Path, quiet: bool, as_json: bool, compare: bool) -> None:
    """Run a prepared matrix, write its folder and print its table; exit 1 where it has gaps."""
    from ..cells import plan
    from ..cells.determinism import unpromised
    from ..cells.results import told_versions
    from ..report import leaderboards, summary, to_json, unlearned
    from ..store.store import FullError
    from ..suite import run as frontend

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
    except (KeyboardInterrupt, FullError) as error:
        done = sum(matrix.store.has("cell", cell.key) for cell in matrix.cells)
        why = f"{error}; " if isinstance(error, FullError) else ""
        click.echo(
            f"stopped: {why}{done} of {len(matrix.cells)} cells are kept; "
            "type the same command again to go on",
            err=True,
        )
        raise SystemExit(1 if why else 130) from None
    frontend.save(matrix, outcome, folder, ["uebench", *sys.argv[1:]])
    boards, titles = leaderboards(outcome.cells), plan.table_titles(matrix.cells)
    if as_json:
        click.echo(to_json(boards))
    else:
        print_run(matrix.config, matrix.cells, outcome.cells, compare)
    _warn(told_versions(outcome.cells))
    failed = outcome.cells[outcome.cells["status"] == "failed"]
    n_skipped = int((outcome.cells["status"] == "skipped").sum())
    if not quiet:
        chance = {dataset.name: dataset.chance for dataset in matrix.datasets}
        for line in summary(boards, titles, chance):
            click.echo(line, err=True)
        blind = any(unlearned(board, chance.get(board.settings.dataset)) for board in boards)
        click.echo(f"{outcome.seconds:.0f} s; results are in {folder}", err=True)
        click.echo(f"next: {_next(folder, matrix, len(failed), n_skipped, blind)}", err=True)
    if len(failed):
        reasons = dict.fromkeys(failed["error"])
        told = f"{len(failed)} cells failed (tracebacks are in {folder / 'run.json'}): "
        click.echo(told + "; ".join(reasons), err=True)
    if n_skipped:
        limit_s = matrix.stop_after_s
        why = f"not reached in {limit_s / 60:g} min (--stop-after)" if limit_s else "lost again"
        click.echo(
            f"{n_skipped} of {len(matrix.cells)} cells were {why}; type the same command to go on",
            err=True,
        )
    if len(failed) or n_skipped:
        raise SystemExit(1)


def _warn(sentence: str | None) -> None:
    """Say a sentence on stderr, where there is one to say."""
    if sentence:
        click.echo(sentence, err=True)


def _next(folder: Path, matrix: Any, n_failed: int, n_skipped: int, blind: bool) -> str:
    """Return the command that a reader of these results may want to type.

    Args:
        folder: where the results are.
        matrix: what was run.
        n_failed: cells that failed.
        n_skipped: cells that were not reached.
        blind: whether not even clean data were learned.
    """
    typed = shlex.join(["uebench", *sys.argv[1:]])
    if n_failed:
        return f"mend what failed, then the same again; nothing is computed twice: {typed}"
    if n_skipped:
        return typed
    if blind:
        return f"{typed} --epochs {2 * max(cell.protocol.epochs for cell in matrix.cells)}"
    if len(matrix.config.seeds) == 1 and sys.argv[1:2] == ["run"] and "--seeds" not in typed:
        return f"{typed} --seeds 0,1,2"
    return f"uebench publish {shlex.quote(str(folder))} FOLDER"


def _default_folder(config: str | None, options: dict[str, Any], cells: Any) -> Path:
    """Return results/NAME for a configuration as it is, else results/run-HASH of the matrix."""
    from ..store.store import key_of

    replaced = [
        key
        for key, value in options.items()
        if value and key not in ("device", "data_dir", "download", "quiet", "dry_run")
    ]
    if not replaced:
        return Path("results") / Path(config or "quick").stem
    return Path("results") / f"run-{key_of({'cells': [cell.key for cell in cells]})[:8]}"
