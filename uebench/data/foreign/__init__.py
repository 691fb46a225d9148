"""Read poisons that others released: files are not trusted, and their numbers are interpreted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import Dataset
from ..poison import Poison
from .interpret import Reading, interpret
from .sniff import read_foreign

__all__ = ["Reading", "read_poison"]


def read_poison(
    path: Path, dataset: Dataset, reading: Reading | None = None
) -> tuple[Poison, dict[str, Any]]:
    """Return the poison in a file of any common format, and how it was read.

    The poison keeps the order of the file, and its labels if it has any.

    Raises:
        PoisonError: the file cannot be read or trusted, does not fit the data set, or could be
            read in two ways.
    """
    foreign = read_foreign(path, dataset)
    return interpret(foreign, dataset, reading or Reading(), f"{path}")
