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


def imported_names(sources: Sequence[Contents]) -> dict[str, str]:
    """Return the names of imported poisons that are replaced by the first name of their images.

    A name is replaced only if it stands for these images wherever it occurs, and so does the other.
    """
    first: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    for source in sources:
        for row in source.rows:
            if images := _imported_images(source, row):
                attack = str(row["attack"])
                names.setdefault(attack, set()).add(first.setdefault(images, attack))
    return {
        attack: name
        for attack, (name, *others) in ((attack, sorted(known)) for attack, known in names.items())
        if not others and name != attack and names[name] == {name}
    }


def renamed(spec: str, names: Mapping[str, str]) -> str:
    """Return an attack with its options under the name that replaces its own, if one does."""
    attack, bracket, options = spec.partition("[")
    return f"{names.get(attack, attack)}{bracket}{options}"


def _imported_images(source: Contents, row: CellRow) -> str:
    """Return the hash of a row's imported images, or an empty text if it has none."""
    recipe: Mapping[str, Any] = source.run.recipes.get(str(row["key"]), {})
    poison = recipe.get("poison")
    if not str(row["attack"]).startswith(IMPORTED) or not isinstance(poison, Mapping):
        return ""
    return str(poison.get("imported", ""))
