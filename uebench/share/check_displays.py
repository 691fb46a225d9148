"""Check that the tables, page and README of a results folder show what its data say.

The data are cells.csv, run.json, records.json and the pictures. Tables, the page and a bundle's
README.md are written again from them and compared, so a reader need not trust these files.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import report
from ..cells.cell import Cell
from ..cells.config import make_config
from ..cells.paper_table import paper_grid, table_texts
from ..common.json_file import RUN
from ..common.text import one_line, shell_line
from ..methods.meanings import known_meanings
from ..report.detection import DETECTION
from ..report.folder import PICTURES_FOLDER, Results, read_results
from ..report.formats import leaderboard_texts
from ..report.page import PAGE, render
from ..report.records import RunFacts
from .contents import Contents, Remarks, Unchecked
from .manifest import MANIFEST

POISONS, README = "poisons.json", "README.md"
RECORDED_FILES = ("cells.csv", RUN, "records.json")
"""The files that the others follow from."""
TABLE = ("table.csv", "table.md", "table.tex")
PICTURES = (".png", ".svg", ".pdf")
LICENCE = "\n## Licence\n\n"
MEANINGS = {
    "cells.csv": "one row per trained model: its settings, its accuracies in [0, 1] and its key",
    "leaderboard.csv": "the leaderboard as data",
    "leaderboard.md": "the leaderboard in Markdown",
    "leaderboard.tex": "the leaderboard in LaTeX",
    RUN: "command, versions, recipes by key and the measurements of each poison",
    "records.json": "curves, confusion matrices and times of the models by key",
    PICTURES_FOLDER: "clean images, perturbations and poisoned images of each poison",
    DETECTION: "what detectors say about each poison",
    "table.csv": "the paper's table as data",
    "table.md": "the paper's table in Markdown",
    "table.tex": "the paper's table in LaTeX",
    POISONS: "sha256, recipe and measured budget of each poison",
    PAGE: "the web page, which needs no network",
}
"""What each file of a bundle is, for its README.md."""


def texts(results: Results, cells: Sequence[Cell] | None) -> dict[str, Callable[[], str]]:
    """Return the makers of a folder's displayed texts, by file name.

    Args:
        results: the folder.
        cells: its planned cells; None if they cannot be planned here, so that a paper's table
            cannot be laid out.
    """
    tables = leaderboard_texts(report.leaderboards(results.cells), results.titles)
    if cells is not None and (config := make_config(results.run.config)).table is not None:
        tables |= table_texts(paper_grid(config, cells, results.cells, results.titles))
    return {
        **{name: partial(str, text) for name, text in tables.items()},
        POISONS: lambda: json.dumps(_poisons(results.run), indent=1) + "\n",
        README: lambda: readme(results, _licence(results.folder)),
        PAGE: lambda: render(_titled(results), known_meanings()),
    }


def check_displays(contents: Contents, cells: Sequence[Cell] | None) -> Remarks:
    """Yield the displayed files whose contents do not follow from the data.

    A file of another version of uebench may be worded differently; then its tables must show the
    same numbers.
    """
    folder = contents.folder
    results = read_results(folder)
    makers = texts(results, cells)
    for name, make in makers.items():
        path = folder / name
        if not path.is_file() or name == "leaderboard.csv":
            continue
        if (theirs := path.read_text(encoding="utf-8")) == (ours := make()):
            continue
        first = next(
            (line for line, other in _lines(theirs, ours) if line != other), "its last line"
        )
        if contents.is_of_this_version:
            yield f"{name} is not what the folder's data give, from: {first.strip()[:120]!r}"
        elif row := first_other_row(theirs, ours):
            yield f"{name} shows other numbers than the folder's data give: {row[:120]!r}"
        else:
            yield Unchecked(f"{name} beyond the numbers in its tables: another version wrote it")
    for name in TABLE:
        if name not in makers and (folder / name).is_file():
            yield Unchecked(f"{name}, as its cells cannot be planned here")
    known = {key[:8] for key in results.run.poisons}
    for path in sorted((folder / PICTURES_FOLDER).glob("*")):
        if path.stem.rpartition("-")[2] not in known:
            yield f"{PICTURES_FOLDER}/{path.name} is of no poison in {RUN}"
    yield Unchecked("titles, licences, commands and pictures, which the data do not determine")


def _lines(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of two texts side by side; the shorter one is extended by empty lines."""
    mine, other = theirs.splitlines(), ours.splitlines()
    for number in range(max(len(mine), len(other))):
        yield "".join(mine[number : number + 1]), "".join(other[number : number + 1])


def first_other_row(theirs: str, ours: str) -> str | None:
    """Return the first table row of a text that has no counterpart in the other text, or None.

    Rows are those of Markdown, LaTeX and HTML, and counterparts have the same label. The numbers of
    one may be some of the other's, in the same order, since versions differ in their columns.
    """
    known = [_label_and_numbers(row) for row in _table_rows(ours)]
    for row in _table_rows(theirs):
        label, numbers = _label_and_numbers(row)
        others = [n for other, n in known if other == label]
        if numbers and not any(_is_part(numbers, n) or _is_part(n, numbers) for n in others):
            return row
    return None


def _table_rows(text: str) -> list[str]:
    if "<tr" in text:
        cells = [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"(?s)<tr.*?</tr>", text)]
        return [one_line(html.unescape(row)) for row in cells]
    lines = [line for line in text.splitlines() if line.startswith("|") or line.endswith("\\\\")]
    return [line for line in lines if r"\shortstack" not in line]  # headings of older versions


def _label_and_numbers(row: str) -> tuple[str, list[str]]:
    """Return the name at the start of a row, without its options, and the row's numbers.

    Versions of uebench print options with the name, or in a footnote that a letter stands for.
    """
    row = row.replace("{[}", "[").replace("worst case over attacks", "worst case")
    label = re.split(r"[\d*\[&|]|\\text", row.lstrip("| "))[0]
    label = re.sub(r" \(\w+\)$", "", label.strip())  # which older versions did not add to a title
    return label, re.findall(r"\d[\d.,]*", row)


def _is_part(short: list[str], whole: list[str]) -> bool:
    """Return whether all numbers occur in the other list in the same order; False if none do."""
    rest = iter(whole)
    return bool(short) and all(number in rest for number in short)


def _titled(results: Results) -> Results:
    """Return results that carry the title of the folder's page.

    Without a title in the configuration, a page has the name that its folder had when it was
    written, and a folder may be renamed.
    """
    page = results.folder / PAGE
    title = (
        re.search(r"<title>(.*) · uebench</title>", page.read_text()) if page.is_file() else None
    )
    name = html.unescape(title[1]) if title else ""
    return replace(results, folder=results.folder / name.replace("/", " "))


def _licence(folder: Path) -> str:
    path = folder / README
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text.partition(LICENCE)[2].removesuffix("\n")


def readme(results: Results, licence: str) -> str:
    """Return the README.md of a bundle whose other files are complete, in Markdown."""
    run, cells = results.run, results.cells
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    ok = int((cells["status"] == "ok").sum())
    table = report.to_markdown(report.leaderboards(cells), results.titles)
    machine = run.machine.get("cpu") or run.machine.get("platform") or "unknown machine"
    devices = ", ".join(sorted({d for d in cells["device"] if d})) or "unknown"
    names = sorted({path.name for path in results.folder.iterdir()} - {README, MANIFEST})
    command = ["They were computed by", "", "```sh", shell_line(run.command), "```", ""]
    return (
        "\n".join(
            [
                f"# {run.config.get('title') or 'Unlearnable examples against defenses'}",
                "",
                f"{ok} of {len(cells)} models, trained with uebench ({versions}) on {devices} "
                f"({machine}).",
                "",
                *(command if run.command else []),
                table.rstrip(),
                "",
                "## Files",
                "",
                *(f"- `{name}`: {MEANINGS.get(name, 'a picture')}" for name in names),
                "",
                *_foreign_methods(run),
                "## How to check the results",
                "",
                f"`sha256sum -c {MANIFEST}` checks that no file was changed, and `uebench validate "
                ".` that the numbers are possible and belong to their recipes.",
            ]
        )
        + f"\n{LICENCE}{licence}\n"
    )


def _poisons(run: RunFacts) -> list[dict[str, Any]]:
    private = ("author_record", "path")
    return [
        {"key": key, **{name: value for name, value in poison.items() if name not in private}}
        for key, poison in run.poisons.items()
    ]


def _foreign_methods(run: RunFacts) -> list[str]:
    parts = [
        (part.get(kind), part.get("source"))
        for recipe in run.recipes.values()
        for kind, part in (("attack", recipe.get("poison")), ("defense", recipe))
        if isinstance(part, dict)
    ]
    hashes = {(one_line(str(name)), one_line(str(sha256))) for name, sha256 in parts if sha256}
    if not hashes:
        return []
    return [
        "## Methods that are not uebench's",
        "",
        "This bundle does not contain them. Publish their files too, so that others can repeat "
        "the results.",
        "",
        *(f"- `{name}`: sha256 of its file {sha256}" for name, sha256 in sorted(hashes)),
        "",
    ]
