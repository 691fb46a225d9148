"""Look at results and poisons from Python, as the verbs of the same names do on the command line.

What these functions return shows itself: as text, and in a notebook as tables and pictures.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from ..common.errors import UserError
from ..common.names import PLOTS
from ..common.spec import split_specs
from ..common.text import escaped
from ..data import Dataset
from ..data.foreign import Reading, read_poison
from ..data.foreign.interpret import ContentKind, Rounding, Scale
from ..data.load import as_dataset
from ..data.measured import Measurements
from ..data.poison import Poison, PoisonError
from ..data.poison_files import audit_poison
from ..methods.meanings import known_meanings
from ..methods.registry import KINDS, known_titles
from ..report import Results, conform_cells, leaderboards, read_results, write_page
from ..report.canvas import PLOT_FORMATS
from ..report.compare import ours_of, with_published
from ..report.display import Comparison, Leaderboards, Plots
from ..report.paper_width import inches
from ..report.plots import draw
from ..report.published import read_published
from ..report.records import CellRecord, as_read
from ..report.selection import selected
from ..report.tables import metric_of
from ..share.known import is_folder_of_results
from ..share.merge import merged
from ..store.store import Store
from .examples import draw_examples
from .listing import catalogued

Source: TypeAlias = "pd.DataFrame | str | Path | Sequence[str | Path]"
"""Where results are: a table of `uebench.run`, or one or more results folders."""


def results_of(source: Source) -> Results:
    """Return the results of a table or of folders, several of which are merged.

    The curves and confusion matrices of a table are those of its cells in the store.

    Raises:
        UserError: a folder cannot be used, or the table does not have the columns of cells.csv.
        ConflictError: records of several folders disagree.
    """
    if isinstance(source, pd.DataFrame):
        cells = conform_cells(pd.DataFrame(source))
        return Results(Path("this table"), cells, records=_stored(cells), titles=known_titles())
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not paths:
        raise UserError("no results are given; give a table of uebench.run or a results folder")
    if len(paths) == 1 and not is_folder_of_results(Path(paths[0])):
        return read_results(paths[0], known_titles())
    texts = [str(path) for path in paths]
    return merged(texts).results(Path(", ".join(map(escaped, texts))), known_titles())


def _stored(cells: pd.DataFrame) -> dict[str, CellRecord]:
    """Return the records of cells that the user's store has, as records.json would hold them."""
    store = Store()
    entries = {key: store.read("cell", key) for key in cells["key"] if key}
    return as_read({key: entry[1] for key, entry in entries.items() if entry is not None})


def leaderboard(results: Source, *, best: bool = False, metric: str | None = None) -> Leaderboards:
    """Return the leaderboards of results: accuracies with attacks in rows.

    Args:
        results: a table of `uebench.run` or a part of it, a results folder, or several folders.
        best: whether to show the best epoch's accuracy instead of the last one's.
        metric: `last`, `best`, `robust` (accuracy under PGD) or `gap` (training minus test).

    Raises:
        UserError: there are no such results, or cells that must not be averaged.
    """
    content = results_of(results)
    if not len(content.cells):
        raise UserError("there are no cells, so there is no leaderboard; run some first")
    boards = leaderboards(content.cells_with_chance, metric_of(metric, best))
    return Leaderboards(tuple(boards), content.titles)


def compare(
    results: Source,
    *,
    published: Path | str | None = None,
    second_hand: bool = False,
    best: bool = False,
) -> Comparison:
    """Return results next to published numbers, with the differences and what explains them.

    Args:
        results: a table of `uebench.run` or a part of it, a results folder, or several folders.
        published: a CSV file of further published numbers.
        second_hand: whether to include numbers that a source copied, or that others noted.
        best: whether to compare the best epoch's accuracy instead of the last one's.

    Raises:
        UserError: there are no such results, or the file of published numbers cannot be used.
    """
    boards = leaderboard(results, best=best)
    rows = read_published(None if published is None else Path(published), second_hand)
    entries = ours_of(boards.boards, boards.titles)
    return Comparison(tuple(with_published(entries, rows, "", known_meanings())))


def plot(
    results: Source,
    kind: str = "curves",
    *,
    out: Path | str | None = None,
    formats: str | Sequence[str] = ("pdf", "png"),
    **options: Any,
) -> Plots:
    """Draw the figures of results, and write them to files if a folder is given.

    Args:
        results: a table of `uebench.run` or a part of it, a results folder, or several folders.
        kind: `curves`, `ratio`, `confusion`, `budget`, `repeats`, `cost`, `victims` or `examples`.
        out: the folder for the files; by default none are written.
        formats: the formats of the files: one or more of `pdf`, `png` and `svg`.
        **options: `best`, `metric`, `width`, `attacks`, `defenses`, `data_dir` and `download`, as
            the flags of `uebench plot`.

    Raises:
        UserError: there is no such kind or format, or the results have nothing to plot.
    """
    if kind not in PLOTS:
        raise UserError(f"there is no plot {kind!r}; the kinds are {', '.join(PLOTS)}")
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    if unknown := [each for each in formats if each not in PLOT_FORMATS]:
        raise UserError(
            f"formats must be some of {', '.join(PLOT_FORMATS)}, got {', '.join(map(str, unknown))}"
        )
    content = results_of(results)
    paths: list[Path] = []
    if out is not None:
        paths = draw_plots(content, kind, Path(out), formats=formats, **options)
    with tempfile.TemporaryDirectory() as scratch:
        if out is None or "png" not in formats:
            paths = draw_plots(content, kind, Path(scratch), formats=("png",), **options)
        return Plots({path.stem: path.read_bytes() for path in paths if path.suffix == ".png"})


def draw_plots(
    content: Results,
    kind: str,
    folder: Path,
    *,
    formats: tuple[str, ...],
    best: bool = False,
    metric: str | None = None,
    width: str | float | None = None,
    attacks: str | Sequence[str] | None = None,
    defenses: str | Sequence[str] | None = None,
    data_dir: Path | str | None = None,
    download: bool = False,
) -> list[Path]:
    """Draw the figures of one kind into a folder and return the paths.

    Args:
        content: the results.
        kind: one of `PLOTS`.
        folder: the folder for the files.
        formats: the formats of the files.
        best: whether to plot the best epoch's accuracy instead of the last one's.
        metric: `last`, `best`, `robust` or `gap`, as of `leaderboard`.
        width: `column`, `page` or inches: the place in a paper, with letters of 7 points or more.
        attacks: the attacks to plot, as a list or separated by commas; by default all.
        defenses: likewise.
        data_dir: with `examples`, the directory of torchvision's data sets.
        download: with `examples`, whether to download a missing data set.

    Raises:
        UserError: an option is bad, or the results have nothing to plot.
    """
    if width is not None and kind == "examples":
        raise UserError(
            "width is for plots with axes, and examples are pictures of a fixed size; leave it out"
        )
    width_in = None if width is None else inches(str(width))
    chosen = (
        split_specs(given) if isinstance(given, str) else list(given or ())
        for given in (attacks, defenses)
    )
    content = replace(content, cells=selected(content.cells, *chosen))
    if kind == "examples":
        return draw_examples(content, folder, data_dir, download, formats=formats)
    chosen_metric = metric_of(metric, best)
    return draw(content, kind, folder, chosen_metric, width=width_in, formats=formats)


def write_report(results: Source, out: Path | str | None = None) -> Path:
    """Write the web page of results and return its path; this is `uebench.report`.

    Args:
        results: a table of `uebench.run` or a part of it, a results folder, or several folders.
        out: the folder for index.html; by default the results folder, if it is a single one.

    Raises:
        UserError: there are no such results, or it is not said where to write.
    """
    content = results_of(results)
    if out is None and not content.folder.is_dir():
        raise UserError("a table and several folders need a folder for the page; give out=FOLDER")
    return write_page(content, content.folder if out is None else Path(out), known_meanings())


def audit(
    poison: Poison | Path | str,
    dataset: Dataset | str | None = None,
    *,
    kind: ContentKind = "auto",
    scale: Scale = "auto",
    rounding: Rounding = "round",
    key: str | None = None,
) -> Measurements:
    """Measure a poison against its clean data set: norms, budgets, visibility, labels and order.

    Args:
        poison: a poison, or a released file of any format; nothing in it is run.
        dataset: the clean data set or its name; by default the one that the poison remembers.
        kind: as for `import_poison`, like `scale`, `rounding` and `key`; for a file.
        scale: see `kind`.
        rounding: see `kind`.
        key: see `kind`.

    Returns:
        The measurements by name; `usable` says whether labels and order fit the data set.

    Raises:
        PoisonError: the file cannot be read or trusted, or does not fit the data set.
    """
    clean = dataset
    if clean is None and isinstance(poison, Poison):
        clean = poison.dataset
    if clean is None:
        raise PoisonError("it is not known what the poison was made from; give the data set")
    loaded = as_dataset(clean)
    if isinstance(poison, Poison):
        return Measurements(audit_poison(poison, loaded))
    return read_and_audit(Path(poison), loaded, kind=kind, scale=scale, rounding=rounding, key=key)[
        1
    ]


def read_and_audit(path: Path, dataset: Dataset, **reading: Any) -> tuple[Poison, Measurements]:
    """Return the poison in a file, and how it was read with what was measured of it.

    Raises:
        PoisonError: the file cannot be read or trusted, or does not fit the data set.
    """
    poison, how_read = read_poison(path, dataset, Reading(**reading))
    has_labels = how_read["labels_from"] == "the file"
    return poison, Measurements({**how_read, **audit_poison(poison, dataset, has_labels)})


def list_methods(kind: str | None = None) -> pd.DataFrame:
    """Return the attacks, defenses and victims that can be run, one row each.

    Args:
        kind: `attacks`, `defenses` or `victims`, or the singular; by default all.

    Returns:
        The columns kind, name, title, source (the paper) and origin (who registered it).

    Raises:
        UserError: there is no such kind.
    """
    plurals = [f"{each}s" for each in KINDS]
    if kind not in (None, *KINDS, *plurals):
        raise UserError(f"kind must be {', '.join(plurals)} or left out for all, got {kind!r}")
    chosen = [each for each in plurals if kind in (None, each, each[:-1])]
    rows = [{"kind": each[:-1], **row} for each in chosen for row in catalogued(each)]
    return pd.DataFrame(rows, columns=["kind", "name", "title", "source", "origin"])
