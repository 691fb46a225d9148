"""A bundle of results for a repository or a paper's supplement: what `uebench publish` writes."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

from ..common.drafts import new_folder, refuse_file_name
from ..common.errors import UserError
from ..common.text import escaped
from ..report import read_cells, read_results, write_cells
from ..report.detection import DETECTION
from ..report.page import PAGE
from ..report.records import read_records, read_run
from .check_cells import planned_or_none
from .check_displays import LICENCE, PICTURES, POISONS, README, RECORDED_FILES, TABLE, texts
from .manifest import write_manifest


class BundleError(UserError):
    """The bundle cannot be written; the message says why and what to do."""


def publish(results: Path, folder: Path, licence: str) -> Path:
    """Write the bundle of a results folder into a new folder, and return the new folder.

    It holds the cells, `run.json`, the models' records (`records.json`), the hashes and budgets of
    the poisons (`poisons.json`), a README.md, SHA256SUMS, the tables and, if they exist, the web
    page and the pictures. The tables and the page are written again, so that they show what the
    data say. In texts, the path of the user's home folder is replaced by `~`.

    Raises:
        BundleError: the folder exists or cannot be created.
        UserError: the results were not written by a run.
    """
    read_run(results, ("recipes", "poisons", "versions"))
    refuse_file_name(folder)
    if folder.exists():
        raise BundleError(f"{folder} already exists; choose another name, or remove it")
    wanted = {POISONS, README, *(path.name for path in results.iterdir())}
    # what is not derived from the data: the name of a page without a title, and the licence
    name = html.escape(escaped(results.resolve().name))
    given = {README: f"{LICENCE}{licence}\n", PAGE: f"<title>{name} · uebench</title>"}
    try:
        with new_folder(folder) as draft:
            copied = (*RECORDED_FILES, *TABLE, DETECTION)
            for path in sorted([*results.glob("[!.]*"), *results.glob("pictures/[!.]*")]):
                if path.name in copied or path.suffix in PICTURES:
                    _copy(path, draft / path.relative_to(results))
            _hash_again(results, draft)
            for file in wanted & given.keys():
                (draft / file).write_text(given[file], encoding="utf-8")
            content = read_results(draft)
            makers = texts(content, planned_or_none(content.run))
            for file in sorted(wanted & makers.keys(), key=lambda file: file == README):
                (draft / file).write_text(makers[file](), encoding="utf-8")
            write_manifest(draft)
    except OSError as error:
        raise BundleError(f"{folder} cannot be created: {error.strerror or error}") from None
    return folder


def _hash_again(results: Path, draft: Path) -> None:
    """Correct the hashes in cells.csv of the records that hid the path of the home folder."""
    names = [folder / "records.json" for folder in (results, draft)]
    before, after = (read_records(name) for name in names)
    hashes = {before[key].sha256: after[key].sha256 for key in before}
    cells = read_cells(draft)
    hidden = cells.replace({"record_sha256": hashes})
    if not hidden.equals(cells):
        write_cells(hidden, draft / "cells.csv")


def _copy(source: Path, target: Path) -> None:
    """Copy a picture as it is, and a text with `~` in place of the user's home folder."""
    target.parent.mkdir(exist_ok=True)
    home = str(Path.home())
    if source.suffix in PICTURES or home in ("/", ""):
        shutil.copyfile(source, target)
    else:
        target.write_text(source.read_text().replace(home, "~"))
