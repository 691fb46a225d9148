"""A bundle of results for a repository or a paper's supplement: what `uebench publish` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .. import report
from ..common.drafts import new_folder
from ..common.errors import UserError
from ..common.json_file import RUN
from ..common.text import one_line
from ..report.folder import RESULT_FILES
from ..report.records import RunFacts, read_run
from .manifest import MANIFEST, write_manifest

_PICTURES = (".png", ".svg", ".pdf")
_MEANINGS = {
    "cells.csv": "one row per trained model: its settings, its accuracies in [0, 1] and its key",
    "leaderboard.csv": "the leaderboard as data",
    "leaderboard.md": "the leaderboard in Markdown",
    "leaderboard.tex": "the leaderboard in LaTeX",
    RUN: "command, versions, recipes by key and the measurements of each poison",
    "records.json": "curves, confusion matrices and times of the models by key",
    "pictures": "clean images, perturbations and poisoned images of each poison",
    "table.csv": "the paper's table as data",
    "table.md": "the paper's table in Markdown",
    "table.tex": "the paper's table in LaTeX",
    "poisons.json": "sha256, recipe and measured budget of each poison",
    "index.html": "the web page, which needs no network",
}
"""What each file of a bundle is, for its README.md."""


class BundleError(UserError):
    """The bundle cannot be written; the message says why and what to do."""


def publish(results: Path, folder: Path, licence: str) -> Path:
    """Write the bundle of a results folder into a new folder, and return the new folder.

    It holds the tables, `run.json`, the models' records (`records.json`), the hashes and budgets of
    the poisons (`poisons.json`), a README.md, SHA256SUMS and, if they exist, the web page and the
    pictures. In texts, the path of the user's home folder is replaced by `~`.

    Raises:
        BundleError: the folder exists or cannot be created.
        UserError: the results were not written by a run.
    """
    run = read_run(results, ("recipes", "poisons", "versions"))
    cells = report.read_cells(results)
    if folder.exists():
        raise BundleError(f"{folder} already exists; choose another name, or remove it")
    try:
        with new_folder(folder) as draft:
            for path in sorted([*results.glob("[!.]*"), *results.glob("pictures/[!.]*")]):
                if path.name in RESULT_FILES or path.suffix in _PICTURES:
                    _copy(path, draft / path.relative_to(results))
            (draft / "poisons.json").write_text(json.dumps(_poisons(run), indent=1) + "\n")
            (draft / "README.md").write_text(_readme(run, cells, licence, draft))
            write_manifest(draft)
    except OSError as error:
        raise BundleError(f"{folder} cannot be created: {error.strerror or error}") from None
    return folder


def _without_home(text: str) -> str:
    """Return a text with `~` in place of the path of the user's home folder."""
    home = str(Path.home())
    return text if home in ("/", "") else text.replace(home, "~")


def _copy(source: Path, target: Path) -> None:
    """Copy a picture as it is, and a text without the path of the user's home folder."""
    target.parent.mkdir(exist_ok=True)
    if source.suffix in _PICTURES:
        shutil.copyfile(source, target)
    else:
        target.write_text(_without_home(source.read_text()))


def _poisons(run: RunFacts) -> list[dict[str, Any]]:
    """Return the hash, budget and measurements of each poison."""
    private = ("author_record", "path")
    return [
        {"key": key, **{name: value for name, value in poison.items() if name not in private}}
        for key, poison in run.poisons.items()
    ]


def _foreign_methods(run: RunFacts) -> list[str]:
    """Return the README section on plug-in methods, or nothing if there are none."""
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


def _readme(run: RunFacts, cells: Any, licence: str, folder: Path) -> str:
    """Return the README of a bundle, in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    ok = int((cells["status"] == "ok").sum())
    page = folder / "leaderboard.md"
    table = page.read_text() if page.is_file() else report.to_markdown(report.leaderboards(cells))
    command = _without_home(" ".join(run.command))
    machine = run.machine.get("cpu") or run.machine.get("platform") or "unknown machine"
    devices = ", ".join(sorted({d for d in cells["device"] if d})) or "unknown"
    names = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    files = [f"- `{name}`: {_MEANINGS.get(name, 'a picture')}" for name in names]
    return "\n".join(
        [
            f"# {run.config.get('title') or 'Unlearnable examples against defenses'}",
            "",
            f"{ok} of {len(cells)} models, trained with uebench ({versions}) on {devices} "
            f"({machine}).",
            "",
            *(["They were computed by", "", "```sh", command, "```", ""] if command else []),
            table.rstrip(),
            "",
            "## Files",
            "",
            *files,
            "",
            *_foreign_methods(run),
            "## How to check the results",
            "",
            f"`sha256sum -c {MANIFEST}` checks that no file was changed, and `uebench validate .` "
            "that the numbers are possible and belong to their recipes.",
            "",
            "## Licence",
            "",
            licence,
            "",
        ]
    )
