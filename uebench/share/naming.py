"""Names that tables of several results folders use where the folders name one thing differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.spec import IMPORTED
from ..common.text import escaped
from ..report.groups import CellRow
from .contents import Contents


def fingerprint_of(source: Contents, dataset: str) -> str:
    """Return the fingerprint of a folder's data set, or an empty text if it is not recorded."""
    facts = source.run.datasets.get(dataset)
    return facts.fingerprint if facts else ""


def dataset_names(sources: Sequence[Contents]) -> dict[str, str]:
    """Return the name of each data set by its fingerprint: the one that the first folder gives it.

    Raises:
        UserError: two different data sets have one name, so tables could not tell them apart.
    """
    names: dict[str, str] = {}
    folders: dict[str, Path] = {}
    for source in sources:
        for name, facts in source.run.datasets.items():
            name = names.setdefault(facts.fingerprint, name)
            first = folders.setdefault(name, source.folder)
            if [n for n, known in names.items() if known == name] != [facts.fingerprint]:
                raise UserError(
                    f"{escaped(first)} and {escaped(source.folder)} have different data sets that "
                    f"are both called {escaped(name)}, so tables could not tell them apart; leave "
                    "one of the folders out"
                )
    return names


class ImportedNames:
    """The name of each imported poison: the one that the first folder with its images gives it."""

    def __init__(self, sources: Sequence[Contents]) -> None:
        """Read the names and the hashes of the images from the rows of the folders."""
        self._by_images: dict[str, str] = {}
        self._renamed: dict[str, set[str]] = {}
        for source in sources:
            for row in source.rows:
                if images := _imported_images(source, row):
                    name = self._by_images.setdefault(images, str(row["attack"]))
                    self._renamed.setdefault(str(row["attack"]), set()).add(name)

    def of_row(self, source: Contents, row: CellRow) -> str:
        """Return the attack of a row; other attacks than imported ones keep their names."""
        return self.of_images(_imported_images(source, row), str(row["attack"]))

    def of_images(self, sha256: str, attack: str) -> str:
        """Return the name of the images with this hash, or `attack` if they were not imported."""
        return self._by_images.get(sha256, attack)

    def of_spec(self, spec: str) -> str:
        """Return an attack with its options, renamed if all rows of its name are renamed alike."""
        attack, bracket, options = spec.partition("[")
        names = self._renamed.get(attack, set())
        return f"{next(iter(names))}{bracket}{options}" if len(names) == 1 else spec


def _imported_images(source: Contents, row: CellRow) -> str:
    """Return the hash of a row's imported images, or an empty text if it has none."""
    recipe: Mapping[str, Any] = source.run.recipes.get(str(row["key"]), {})
    poison = recipe.get("poison")
    if not str(row["attack"]).startswith(IMPORTED) or not isinstance(poison, Mapping):
        return ""
    return str(poison.get("imported", ""))
