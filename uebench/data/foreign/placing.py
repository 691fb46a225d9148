"""Which training image each picture of a poison replaces, according to the names of the files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import PurePosixPath

from ...common.spec import shorten
from .. import Dataset
from ..poison import PoisonError

_NUMBERED = re.compile(r"[A-Za-z_-]*([0-9]{1,12})")
_PARTS = frozenset({"train", "test", "val"})


def by_file_name(
    pictures: Mapping[str, PurePosixPath], dataset: Dataset, who: str
) -> dict[int, str] | None:
    """Return the name of each file by position, if the files are named as the clean ones are.

    They may lie in further folders, also in a `train/` next to a `test/` or `val/`, which is not
    read then. Endings may differ, since a changed JPEG is saved as a PNG. None means that the
    files are named in another way, as all are if the clean set was not read from files.

    Raises:
        PoisonError: most files are named so and others are not, or two replace the same image.
    """
    if not dataset.train_files:
        return None
    positions = _positions(dataset.train_files)
    folders = zip(*(path.parts[:-1] for path in pictures.values()), strict=False)
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    found: dict[str, int | None] = {}
    for depth in range(shared + 1):
        inside = _training_part({name: path.parts[depth:] for name, path in pictures.items()})
        tried = {name: positions.get(_joined(inside[name])) for name in inside}
        tried = {
            name: positions.get(_joined(inside[name], stem=True)) if place is None else place
            for name, place in tried.items()
        }
        found = max(found, tried, key=_known)
    if 2 * _known(found) <= len(found):
        return None
    by_index: dict[int, str] = {}
    for name, place in found.items():
        if place is None:
            raise PoisonError(
                f"{who}: {_known(found)} files are named as training images of {dataset.name}, "
                f"and {shorten(name)} is not; rename or remove it"
            )
        if place in by_index:
            raise PoisonError(
                f"{who}: {shorten(by_index[place])} and {shorten(name)} are named as the same "
                f"training image of {dataset.name}; remove one of them"
            )
        by_index[place] = name
    return by_index


def by_number(pictures: Mapping[str, PurePosixPath], dataset: Dataset, who: str) -> dict[int, str]:
    """Return the name of each file by position, which is the number in its name.

    Raises:
        PoisonError: a name has no number, or one that is too large or that another name has.
    """
    by_index: dict[int, str] = {}
    n = len(dataset.train)
    for name, path in pictures.items():
        matched = _NUMBERED.fullmatch(path.stem)
        if matched is None:
            or_copy = ", or keep the names CLASS/NAME of that set" if dataset.train_files else ""
            raise PoisonError(
                f"{who}: {shorten(name)} does not say which training image it replaces; name the "
                f"files <index>.png, by position in the training set{or_copy}"
            )
        index = int(matched[1])
        if index >= n:
            raise PoisonError(
                f"{who}: {shorten(name)} is index {index}, and {dataset.name} has {n} training "
                "images; give the data set that it was made from"
            )
        if index in by_index:
            raise PoisonError(
                f"{who}: {shorten(by_index[index])} and {shorten(name)} are both index "
                f"{index}; names give the position in the whole training set, not in a class"
            )
        by_index[index] = name
    return by_index


def _known(found: Mapping[str, int | None]) -> int:
    """Return how many files have the name of a training image."""
    return sum(place is not None for place in found.values())


def _positions(files: Sequence[str]) -> dict[str, int]:
    """Return the position of each training image by its name, with and without an ending.

    A name without its ending stands for an image only if no other image shares it.
    """
    parts = [PurePosixPath(file).parts for file in files]
    stems = [_joined(each, stem=True) for each in parts]
    count = Counter(stems)
    positions = {stem: i for i, stem in enumerate(stems) if count[stem] == 1}
    return positions | {_joined(each): i for i, each in enumerate(parts)}


def _joined(parts: Sequence[str], *, stem: bool = False) -> str:
    path = PurePosixPath(*parts)
    return (path.with_suffix("") if stem else path).as_posix()


def _training_part(tails: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return what lies in `train/`, if all the folders are `train/` and `test/` or `val/`."""
    inside = {name: tail[1:] for name, tail in tails.items() if tail[0] == "train"}
    return inside if inside and {tail[0] for tail in tails.values()} <= _PARTS else tails
