"""A bundle of results for a repository or a paper's supplement: what `uebench publish` writes."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from .. import report
from ..common.errors import UserError
from ..common.json_file import RUN
from ..common.text import one_line
from ..report.records import RunFacts, read_run
from .manifest import NAME, write_manifest

TAKEN = (
    "cells.csv",
    RUN,
    "leaderboard.csv",
    "leaderboard.tex",
    "leaderboard.md",
    "table.csv",
    "table.tex",
    "table.md",
    "records.json",
    "index.html",
)
"""What is taken of a results folder, where it is there; its pictures too."""
PICTURES = (".png", ".svg", ".pdf")
MEANING = {
    "cells.csv": "a row a trained model: what it was, its accuracies in [0, 1], its key",
    "leaderboard.csv": "the table as data",
    "leaderboard.md": "the table in Markdown",
    "leaderboard.tex": "the table in LaTeX",
    RUN: "command, versions, recipes by key, what was measured on each poison",
    "records.json": "curves, confusion matrices and times of the models, by key",
    "pictures": "clean, perturbation and poisoned images of each poison",
    "table.csv": "the paper's table as data",
    "table.md": "the paper's table in Markdown",
    "table.tex": "the paper's table in LaTeX",
    "poisons.json": "sha256, recipe and measured budget of each poison",
    "index.html": "the page, which needs no network",
}
"""What each file of a bundle is, for its README.md."""


class BundleError(UserError):
    """A bundle cannot be written: one sentence says why and what to do."""


def publish(results: Path, folder: Path, licence: str) -> Path:
    """Write a bundle of a results folder; return its folder.

    It holds the tables, the page and pictures where they are there, `run.json`, the models' records
    (`records.json`), the hashes and budgets of the poisons (`poisons.json`), a README.md, and
    SHA256SUMS. It is written beside its place and renamed. The
    path of the user's home folder is written as `~`.

    Raises:
        BundleError: the folder cannot be made.
        ValueError: the results are not those of a run.
    """
    told = read_run(results, ("recipes", "poisons", "versions"))
    cells = report.read_cells(results)
    if folder.exists():
        raise BundleError(f"{folder} is there already; choose another name, or remove it")
    draft = folder.parent / f".{uuid.uuid4().hex}.part"
    try:
        draft.mkdir(parents=True)
        for path in sorted([*results.iterdir(), *results.glob("pictures/*")]):
            if path.name in TAKEN or path.suffix in PICTURES:
                _copy(path, draft / path.relative_to(results))
        (draft / "poisons.json").write_text(json.dumps(_poisons(told), indent=1) + "\n")
        (draft / "README.md").write_text(_readme(told, cells, licence, draft))
        write_manifest(draft)
        draft.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder} cannot be made: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _homeless(text: str) -> str:
    """Return a text without the path of the user's home folder."""
    home = str(Path.home())
    return text if home in ("/", "") else text.replace(home, "~")


def _copy(source: Path, target: Path) -> None:
    """Copy a file, text without the path of the user's home folder."""
    target.parent.mkdir(exist_ok=True)
    if source.suffix in PICTURES:
        shutil.copyfile(source, target)
    else:
        target.write_text(_homeless(source.read_text()))


def _poisons(told: RunFacts) -> list[dict[str, Any]]:
    """Return hash, budget and what was measured of each poison."""
    hidden = ("author_record", "path")
    return [
        {"key": key, **{name: value for name, value in poison.items() if name not in hidden}}
        for key, poison in told.poisons.items()
    ]


def _foreign_methods(told: RunFacts) -> list[str]:
    """Return the section on methods that are not the suite's: names, and hashes of their files."""
    parts = [
        (part.get(kind), part.get("source"))
        for recipe in told.recipes.values()
        for kind, part in (("attack", recipe.get("poison")), ("defense", recipe))
        if isinstance(part, dict)
    ]
    found = {(one_line(str(name)), one_line(str(sha256))) for name, sha256 in parts if sha256}
    if not found:
        return []
    return [
        "## Methods that are not uebench's",
        "",
        "They are not in this bundle; put their files beside it, so that others can repeat it.",
        "",
        *(f"- `{name}`: sha256 of its file {sha256}" for name, sha256 in sorted(found)),
        "",
    ]


def _readme(told: RunFacts, cells: Any, licence: str, folder: Path) -> str:
    """Return the data card of a bundle, in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in told.versions.items())
    ok = int((cells["status"] == "ok").sum())
    page = folder / "leaderboard.md"
    table = page.read_text() if page.is_file() else report.to_markdown(report.leaderboards(cells))
    command = _homeless(" ".join(told.command))
    machine = told.machine.get("cpu") or told.machine.get("platform") or "unknown machine"
    devices = ", ".join(sorted({d for d in cells["device"] if d})) or "unknown"
    names = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    files = [f"- `{name}`: {MEANING.get(name, 'a picture')}" for name in names]
    return "\n".join(
        [
            f"# {told.config.get('title') or 'Unlearnable examples against defenses'}",
            "",
            f"{ok} of {len(cells)} models, trained with uebench ({versions}) on {devices} "
            f"({machine}).",
            "",
            *(["Made by", "", "```sh", command, "```", ""] if command else []),
            table.rstrip(),
            "",
            "## Files",
            "",
            *files,
            "",
            *_foreign_methods(told),
            "## To check it",
            "",
            f"`sha256sum -c {NAME}` checks that nothing was changed, and `uebench validate .` that "
            "the numbers are possible and belong to their recipes.",
            "",
            "## Licence",
            "",
            licence,
            "",
        ]
    )
