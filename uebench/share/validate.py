"""Tests of whether results can be true: schema, hashes, ranges, keys and recipes.

Nothing is computed again: a number that passes is possible, which does not make it true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from .. import report
from ..common.errors import UserError
from ..common.json_file import RUN, AbsentFileError, check_size, read_run_json
from ..common.spec import format_spec, parse_spec
from ..report.records import read_records
from ..store.store import key_of
from .manifest import MANIFEST, check_manifest

_Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """The result of one test of a folder.

    Attributes:
        test: its name.
        status: `passed`, `failed` or `skipped`.
        text: what was tested.
        problems: one sentence for each thing that is wrong.
    """

    test: str
    status: Literal["passed", "failed", "skipped"]
    text: str
    problems: tuple[str, ...] = ()


class NotResultsError(UserError):
    """The folder holds no results."""


def validate(folder: Path) -> list[Finding]:
    """Return the findings on a results folder or a bundle.

    Raises:
        NotResultsError: the folder does not exist or has no cells.csv.
    """
    if not (folder / "cells.csv").is_file():
        raise NotResultsError(
            f"{folder} has no cells.csv; give a results folder or one that `uebench publish` wrote"
        )
    findings = [_files(folder)]
    try:
        check_size(folder / "cells.csv")
        cells = report.read_cells(folder)
        board = report.to_csv(report.leaderboards(cells))
    except ValueError as error:
        return [*findings, Finding("schema", "failed", "cells.csv", (str(error),))]
    findings.append(Finding("schema", "passed", f"{len(cells)} cells"))
    rows: list[_Row] = [
        {str(k): None if pd.isna(v) else v for k, v in row.items()}
        for row in cells.to_dict("records")
    ]
    findings.append(_finding("numbers", f"{len(rows)} cells", _impossible(rows)))
    findings.append(_leaderboard(folder, board))
    return [*findings, *_run(folder, rows), _records(folder, rows)]


def _run(folder: Path, rows: list[_Row]) -> list[Finding]:
    """Return the findings on the recipes and poisons in `run.json`."""
    try:
        run = read_run_json(folder, ("recipes", "poisons"))
    except AbsentFileError:
        return [Finding(name, "skipped", f"there is no {RUN}") for name in ("recipes", "poisons")]
    except ValueError as error:
        return [Finding("recipes", "failed", RUN, (str(error),))]
    recipes, poisons = run["recipes"], run["poisons"]
    return [
        _finding("recipes", f"{len(recipes)} recipes", _recipes(rows, recipes)),
        _finding("poisons", f"{len(poisons)} poisons", _poisons(rows, poisons)),
    ]


def _finding(test: str, text: str, problems: list[str]) -> Finding:
    """Return the finding of a test, which passed if there are no problems."""
    return Finding(test, "failed" if problems else "passed", text, tuple(problems))


def _files(folder: Path) -> Finding:
    """Return whether the files are still those that were published."""
    if not (folder / MANIFEST).is_file():
        return Finding("files", "skipped", f"there is no {MANIFEST}: the folder was not published")
    try:
        return _finding("files", MANIFEST, check_manifest(folder))
    except (OSError, UnicodeDecodeError) as error:
        return Finding("files", "failed", MANIFEST, (f"{MANIFEST} cannot be read: {error}",))


def _impossible(rows: list[_Row]) -> list[str]:
    """Return the accuracies that no model can have, and the counts that contradict each other."""
    problems = []
    for row in (row for row in rows if row["status"] == "ok"):
        who = _who(row)
        for name, count in (("test_acc", row["n_test"]), ("test_acc_best", row["n_test"])):
            if row[name] is not None and count and not _is_share(row[name], count):
                problems.append(
                    f"{who}: {name} {row[name]} is not a multiple of 1/{count}, one test image"
                )
        best, last = row["test_acc_best"], row["test_acc"]
        if best is not None and best < last - 1e-6:
            problems.append(
                f"{who}: the best epoch's accuracy {best} is below the last epoch's {last}"
            )
        if row["best_epoch"] and row["epochs"] and row["best_epoch"] > row["epochs"]:
            problems.append(
                f"{who}: the best epoch is {row['best_epoch']}, but there are only {row['epochs']}"
            )
        if not row["key"]:
            problems.append(f"{who}: the cell has no key")
    sizes: dict[str, set[int]] = {}
    for row in rows:
        if row["n_test"]:
            sizes.setdefault(row["dataset"], set()).add(row["n_test"])
    problems += [
        f"{name} has test sets of {', '.join(map(str, sorted(counts)))} images"
        for name, counts in sizes.items()
        if len(counts) > 1
    ]
    return problems


def _is_share(accuracy: float, n: int) -> bool:
    """Return whether an accuracy is a whole number of n images, up to the rounding of float32."""
    hits = accuracy * n
    return math.isclose(hits, round(hits), abs_tol=max(1e-6, 2e-7 * n))


def _who(row: _Row) -> str:
    """Return a short description of a cell."""
    attack = f"{row['attack']}[{row['attack_options']}]" if row["attack_options"] else row["attack"]
    return f"{attack} under {row['defense']}, seed {row['seed']}"


def _leaderboard(folder: Path, board: str) -> Finding:
    """Return whether leaderboard.csv is what the cells give."""
    try:
        text = (folder / "leaderboard.csv").read_text()
    except (OSError, UnicodeDecodeError):
        return Finding("leaderboard", "skipped", "there is no leaderboard.csv")
    differ = [
        f"leaderboard.csv, line {number} differs from what cells.csv gives: {mine[:120]!r}"
        for number, (mine, theirs) in enumerate(
            zip(text.splitlines(), board.splitlines(), strict=False), 1
        )
        if mine != theirs
    ]
    if len(text.splitlines()) != len(board.splitlines()):
        differ.append("leaderboard.csv has more or fewer lines than cells.csv gives")
    return _finding("leaderboard", "leaderboard.csv against cells.csv", differ)


_SHARED = ("arch", "defense", "seed", "precision")
"""Columns that a recipe has under the same name."""


def _bare(arch: Any) -> Any:
    """Return a network without the options that its recipe states differently, such as weights."""
    if not isinstance(arch, str):
        return arch
    try:
        name, options = parse_spec(arch)
    except ValueError:
        return arch
    omitted = ("form", "weights", "sha256")
    return format_spec(name, {k: v for k, v in options.items() if k not in omitted})


def _recipes(rows: list[_Row], recipes: dict[str, Any]) -> list[str]:
    """Return the keys that are not the hash of their recipe, and the cells that contradict it."""
    problems = [
        f"the key {key[:16]} is not the hash of its recipe"
        for key, recipe in recipes.items()
        if not _hashes_to(recipe, key)
    ]
    for row in (row for row in rows if row["status"] == "ok"):
        recipe = recipes.get(row["key"])
        if not isinstance(recipe, dict):
            problems.append(f"{_who(row)}: {RUN} has no recipe for its key {str(row['key'])[:16]}")
            continue
        poison = recipe.get("poison")
        protocol = recipe.get("protocol")
        of_recipe = {name: recipe.get(name) for name in _SHARED}
        of_recipe["epochs"] = protocol.get("epochs") if isinstance(protocol, dict) else None
        mine = {name: row[name] for name in _SHARED} | {"epochs": row["epochs"]}
        of_recipe["arch"], mine["arch"] = (_bare(m["arch"]) for m in (of_recipe, mine))
        if isinstance(poison, dict) and "attack" in poison:
            of_recipe["attack"], mine["attack"] = poison["attack"], row["attack"]
            of_recipe["ratio"], mine["ratio"] = recipe.get("ratio"), row["ratio"]
        elif isinstance(poison, dict) and "imported" not in poison:
            of_recipe["attack"], mine["attack"] = "none", row["attack"]
        problems += [
            f"{_who(row)}: its {name} is {mine[name]!r}, but its recipe has {of_recipe[name]!r}"
            for name in mine
            if mine[name] is not None and mine[name] != of_recipe[name]
        ]
    return problems


def _hashes_to(recipe: Any, key: str) -> bool:
    try:
        return key_of(recipe) == key
    except (TypeError, ValueError, RecursionError):
        return False


def _poisons(rows: list[_Row], poisons: dict[str, Any]) -> list[str]:
    """Return the poisons that contradict their recipe, their budget or the cells."""
    problems, hashes = [], set()
    for key, poison in poisons.items():
        if not isinstance(poison, dict) or not _hashes_to(poison.get("recipe"), key):
            problems.append(f"the key of the poison {key[:16]} is not the hash of its recipe")
            continue
        hashes.add(poison.get("sha256"))
        problems += _over_budget(key, poison)
    for row in rows:
        if row["poison_sha256"] and row["poison_sha256"] not in hashes:
            problems.append(f"{_who(row)}: its poison {row['poison_sha256'][:16]} has no record")
    return problems


def _over_budget(key: str, poison: dict[str, Any]) -> list[str]:
    """Return a problem if the measured perturbation of a poison exceeds its budget."""
    match poison:
        case {"budget": {"norm": "linf", "eps": float(eps)}, "linf_max": float(most)}:
            allowed = math.floor(255 * eps + 0.5) + 1e-4
        case {"budget": {"norm": "l0", "eps": float() | int() as pixels}, "l0_max": float(most)}:
            allowed = float(pixels)
        case {
            "budget": {"norm": "l2", "eps": float(eps)},
            "l2_max": float(most),
            "l0_max": float(pixels),
        }:
            # Rounding to 8 bits moves each channel of a changed pixel by up to half a level.
            allowed = eps + 0.5 / 255 * math.sqrt(3 * pixels) + 1e-4
        case _:
            return []
    if most <= allowed:
        return []
    return [f"the poison {key[:16]} has a norm of {most:g}, but its budget allows {allowed:g}"]


def _records(folder: Path, rows: list[_Row]) -> Finding:
    """Return whether the models' records belong to these cells and give the same accuracies."""
    path = folder / "records.json"
    if not path.is_file():
        return Finding("records", "skipped", "there is no records.json")
    by_key = {row["key"]: row for row in rows}
    problems = []
    try:
        records = read_records(path)
    except ValueError as error:
        return _finding("records", "", [str(error)])
    for key, record in records.items():
        total, hits = record.confusion.total, record.confusion.correct
        row = by_key.get(key)
        if row is None:
            problems.append(f"the record {key[:16]} belongs to no cell")
        elif not total or abs(hits / total - row["test_acc"]) > 1e-6:
            problems.append(f"{_who(row)}: its confusion matrix gives another accuracy")
    return _finding("records", f"{len(records)} records", problems)
