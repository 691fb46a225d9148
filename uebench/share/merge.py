"""Join results folders into one: `uebench merge`, and tables and pages of several folders.

Cells are joined by their keys, and a cell that several folders have counts once. What a table must
not average, cells of one place with different recipes, is refused; other settings get tables of
their own, as in the results of one run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..cells.cell import seedless_key
from ..cells.config import dataset_specs, make_config, parts
from ..cells.fields import WHOLE
from ..cells.results import check_folder, measured
from ..common.drafts import replaced_folder
from ..common.errors import MethodError, UserError
from ..common.json_file import RUN
from ..common.provenance import origins
from ..common.text import distinct_titles, escaped, write_text
from ..methods.meanings import known_meanings
from ..methods.registry import Kind, find
from ..report import Results, conform_cells, leaderboards, read_results, write_leaderboards
from ..report.detection import Detection, write_detection
from ..report.folder import PICTURES_FOLDER, Picture, is_result, picture_name
from ..report.groups import CellRow, Settings, the_attack, the_defense
from ..report.page import write_page
from ..report.records import (
    CellRecord,
    RunFacts,
    origin_in_words,
    record_sha256,
    write_records,
)
from ..report.words import Titles
from ..store.store import key_of
from .agreement import PLACE, cell_name, shortened
from .check_cells import flat
from .contents import Contents, key_or_none
from .known import RECORDS, KnownCell, checked_contents, disagreement, known_cells, refuse
from .known import results_folders as results_folders
from .naming import dataset_names, fingerprint_of, imported_names, renamed


@dataclass(frozen=True, eq=False)
class Merged:
    """Several results folders as one.

    Attributes:
        cells: the rows of cells.csv.
        run: the contents of run.json.
        records: the records of the finished cells by key, as a store keeps them.
        shown: the same records as reports read them.
        pictures: the pictures of the poisons, by the first eight digits of their keys.
    """

    cells: pd.DataFrame
    run: dict[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    shown: Mapping[str, CellRecord]
    pictures: Mapping[str, Picture]
    detection: Sequence[Detection] = ()

    def results(self, folder: Path, titles: Titles | None = None) -> Results:
        """Return what reports read, under the name of a folder; `titles` fill gaps."""
        facts = RunFacts.model_validate(self.run)
        known = {name: method.title for name, method in facts.methods.items() if method.title}
        both = {**(titles or {}), **distinct_titles(known)}
        parts = (self.shown, self.pictures, both, self.detection)
        return Results(folder, self.cells, facts, *parts)

    def write(self, folder: Path) -> Results:
        """Write a results folder, all of its files or none, and return what reports read of it."""
        results = self.results(folder)
        with replaced_folder(folder, is_result) as draft:
            write_text(draft / RUN, json.dumps(self.run, indent=1) + "\n")
            write_records(draft / RECORDS, self.records)
            write_leaderboards(self.cells, draft, results.titles)
            if self.detection:
                write_detection(self.detection, draft)
            attacks = {key[:8]: poison["recipe"] for key, poison in results.run.poisons.items()}
            for key, picture in self.pictures.items():
                name = picture_name(str(attacks[key].get("attack", "imported")), key)
                (draft / PICTURES_FOLDER).mkdir(exist_ok=True)
                (draft / PICTURES_FOLDER / name).write_bytes(picture.png)
            write_page(results, draft, known_meanings())
        return results


@dataclass(eq=False)
class _Union:
    """The rows of several folders while they are joined; rows of one place and key count once."""

    finished: dict[tuple[Any, ...], KnownCell] = field(default_factory=dict)
    unfinished: dict[tuple[Any, ...], CellRow] = field(default_factory=dict)
    order: dict[tuple[Any, ...], None] = field(default_factory=dict)
    by_key: dict[str, KnownCell] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)

    def add(self, row: CellRow, known: KnownCell | None) -> None:
        """Add a row with the name of its data set here; `known` is the cell if it is finished."""
        place = _place(row)
        if known is None:
            self.unfinished.setdefault(place, row)
            self.order.setdefault(place)
            return
        first = self.by_key.setdefault(row["key"], known)
        self.conflicts += disagreement(first, known)
        self.finished.setdefault((*place, row["key"]), KnownCell(row, first.record))
        self.order.setdefault((*place, row["key"]))

    def rows(self) -> list[CellRow]:
        """Return the rows; an unfinished one only if no folder has finished its cell."""
        done = {place[:-1] for place in self.finished}
        rows = []
        for place in self.order:
            if place in self.finished:
                known = self.finished[place]
                origin = origin_in_words(known.record["reused"])
                sha256 = record_sha256(known.record)
                made = {**measured(known.record), "record_sha256": sha256, "origin": origin}
                rows.append({**known.row, **made})
            elif place not in done:
                rows.append(self.unfinished[place])
        return rows


def merged(paths: Sequence[Path | str], command: Sequence[str] = ()) -> Merged:
    """Return the results of several folders as one; nothing is written.

    Args:
        paths: results folders, published bundles, or folders of them.
        command: the command line, for run.json.

    Raises:
        UserError: a path leads to no results, a folder cannot be used, or two different data sets
            have one name.
        ConflictError: records of one key disagree, or cells of one place have different recipes.
    """
    sources = [checked_contents(folder) for folder in results_folders(paths)]
    names, imported = dataset_names(sources), imported_names(sources)
    union = _Union()
    for source in sources:
        known = {(k.row["key"], *_place(k.row)): k for k in known_cells(source)}
        for row in source.rows:
            recipe = source.run.recipes.get(str(row["key"]), {})
            named = {
                **_with_families(row),
                "dataset": names.get(fingerprint_of(source, row["dataset"]), row["dataset"]),
                "attack": imported.get(row["attack"], row["attack"]),
            }
            if not row["recipe"] and "poison" in recipe:
                named["recipe"] = seedless_key(recipe)
            union.add(named, known.get((row["key"], *_place(row))))
    refuse(union.conflicts)
    rows = union.rows()
    refuse(_mixed_recipes(list(union.finished.values())))
    cells = conform_cells(pd.DataFrame(rows))
    leaderboards(cells)  # refuses what it cannot average before anything is written
    keys = {str(row["key"]) for row in rows}
    records = {key: known.record for key, known in union.by_key.items()}
    run = {"command": list(command), **_run(sources, names, imported, keys, records)}
    shown = {key: record for s in reversed(sources) for key, record in s.records.items()}
    read = [read_results(source.folder) for source in sources]
    kept = {key[:8] for key in run["poisons"]}
    pictures = {k: p for each in reversed(read) for k, p in each.pictures.items() if k in kept}
    detection = _detection(read, sources, names, imported)
    return Merged(cells, run, records, {k: shown[k] for k in records}, pictures, detection)


def _detection(
    read: Sequence[Results],
    sources: Sequence[Contents],
    names: Mapping[str, str],
    imported: Mapping[str, str],
) -> list[Detection]:
    """Return what detectors said in all folders; of one question, the first folder's answer."""
    answers: dict[tuple[Any, ...], Detection] = {}
    for results, source in zip(read, sources, strict=True):
        for row in results.detection:
            name = names.get(fingerprint_of(source, row.dataset), row.dataset)
            attack = imported.get(row.attack, row.attack)
            question = (name, attack, row.attack_options, row.poison_seed, row.detector)
            here = row.model_copy(update={"dataset": name, "attack": attack})
            answers.setdefault(question, here)
    return list(answers.values())


def merge(paths: Sequence[Path | str], out: Path, command: Sequence[str] = ()) -> Results:
    """Write the results of several folders into one folder, and return what it holds.

    Raises:
        UserError: as for `merged`, or `out` cannot be written or is one of the folders.
        ConflictError: as for `merged`; nothing was written.
    """
    if out.resolve() in (folder.resolve() for folder in results_folders(paths)):
        raise UserError(f"--out {escaped(out)} is one of the merged folders; choose another folder")
    union = merged(paths, command)
    check_folder(out)
    return union.write(out)


def _with_families(row: CellRow) -> CellRow:
    """Return a row with the families of its methods, which folders of older versions do not have.

    The family of a method that is not installed here stays empty.
    """
    filled = dict(row)
    kinds: tuple[Kind, Kind] = ("attack", "defense")
    for kind in kinds:
        if not row[f"{kind}_family"]:
            with contextlib.suppress(UserError, MethodError):
                filled[f"{kind}_family"] = find(kind, row[kind]).info.family
    return filled


def _place(row: CellRow) -> tuple[Any, ...]:
    return tuple(row[name] for name in PLACE)


def _mixed_recipes(cells: Sequence[KnownCell]) -> list[str]:
    """Return a sentence for each place in a table whose cells were made by different recipes."""
    places: dict[Any, dict[str, KnownCell]] = {}
    for cell in cells:
        row = cell.row
        place = (Settings.of(row), the_attack(row), the_defense(row))
        places.setdefault(place, {}).setdefault(row["recipe"], cell)
    sentences = []
    for first, *others in (list(recipes.values()) for recipes in places.values()):
        for other in others:
            before, now = (dict(flat(each.record["recipe"])) for each in (first, other))
            differing = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
            seeds = ("seed", "ratio_seed", "poison.seed")
            text = ", ".join(
                f"{name} {shortened(before.get(name))} and {shortened(now.get(name))}"
                for name in [name for name in differing if name not in seeds][:4]
            )
            sentences.append(
                f"{cell_name(first.row)} in {first.folder} and {cell_name(other.row)} in "
                f"{other.folder} were made by different recipes and are not averaged: {text}"
            )
    return sentences


def _run(
    sources: Sequence[Contents],
    names: Mapping[str, str],
    imported: Mapping[str, str],
    keys: set[str],
    records: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the contents of run.json except the command.

    Args:
        sources: the folders.
        names: the names of the data sets, by fingerprint.
        imported: the names of imported poisons that are replaced, and by what.
        keys: the keys of all rows.
        records: the records of the finished cells.
    """
    raw = [source.raw for source in sources]
    recipes = {key: recipe for s in sources for key, recipe in s.run.recipes.items() if key in keys}
    poisons, others = _poisons(sources, recipes, records)
    facts = {f.fingerprint: f.model_dump() for s in sources for f in s.run.datasets.values()}
    failures = {k: v for s in sources for k, v in s.run.failures.items()}
    return {
        "config": _config(sources, imported),
        "versions": _common(each.get("versions") for each in raw),
        "git": git if all((git := raw[0].get("git")) == each.get("git") for each in raw) else None,
        "origins": origins(records),
        "machine": _common(each.get("machine") for each in raw),
        "seconds": sum(source.run.seconds or 0 for source in sources),
        "recipes": recipes,
        "poisons": poisons,
        **({"other_poisons": others} if others else {}),
        "reused": {
            key: {name: value for name, value in record["reused"].items() if name != "poison"}
            for key, record in records.items()
        },
        "failures": {k: v for k, v in failures.items() if k in keys - records.keys()},
        "datasets": {name: facts[fingerprint] for fingerprint, name in names.items()},
        "methods": {
            name: method.model_dump()
            for source in reversed(sources)
            for name, method in source.run.methods.items()
            if name not in imported
        },
    }


def _poisons(
    sources: Sequence[Contents],
    recipes: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return one poison per key, and those with other hashes that cells were trained on."""
    used = [poison for each in records.values() if (poison := each["reused"]["poison"])]
    poisons = {key: poison for s in reversed(sources) for key, poison in s.run.poisons.items()}
    poisons |= {key_of(poison["recipe"]): poison for poison in reversed(used)}
    others = {
        (key, poison["sha256"], poison.get("craft_seconds")): {**poison, "key": key}
        for poison in used
        if poison != poisons[key := key_of(poison["recipe"])]
    }
    wanted = {key_or_none(recipe.get("poison")) for recipe in recipes.values()}
    return {k: p for k, p in poisons.items() if k in wanted}, list(others.values())


def _config(sources: Sequence[Contents], imported: Mapping[str, str]) -> dict[str, Any]:
    """Return a configuration that describes the cells of all folders, each folder as its parts.

    A data set and an imported poison have the first folder's name everywhere, and `auto` becomes
    the precision that the cells of a folder have.
    """
    specs: dict[str, str] = {}
    matrices = []
    for source in sources:
        config = make_config(source.run.config)
        pairs = zip(dataset_specs(config), source.run.datasets.values(), strict=True)
        spec_here = {spec: specs.setdefault(facts.fingerprint, spec) for spec, facts in pairs}
        used = {str(recipe.get("precision")) for recipe in source.run.recipes.values()} - {"None"}
        for part in parts(config):
            fields = part.model_dump(exclude=set(WHOLE))
            fields["dataset"] = [spec_here[spec] for spec in part.dataset]
            fields["attacks"] = list(
                dict.fromkeys(renamed(spec, imported) for spec in part.attacks)
            )
            if part.protocol_options.get("precision", "auto") == "auto" and len(used) == 1:
                fields["protocol_options"] = {**part.protocol_options, "precision": max(used)}
            if fields not in matrices:
                matrices.append(fields)
    return make_config({"dataset": list(specs.values()), "matrices": matrices}).model_dump()


def _common(mappings: Iterable[Any]) -> dict[str, str]:
    """Return the values of several mappings by name; where they differ, all of them."""
    values: dict[str, dict[str, None]] = {}
    for mapping in mappings:
        for name, value in (mapping if isinstance(mapping, dict) else {}).items():
            values.setdefault(str(name), {}).setdefault(str(value))
    return {name: ", ".join(each) for name, each in values.items()}
