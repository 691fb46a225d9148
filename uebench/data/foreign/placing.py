"""Which training image each picture of a poison replaces, according to the names of the files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePath, PurePosixPath

from ...common.spec import printable, shorten
from .. import Dataset
from ..poison import PoisonError

_NUMBERED = re.compile(r"[A-Za-z_-]*([0-9]{1,12})")
_TESTS = frozenset({"test", "val"})

Pictures = Mapping[str, PurePosixPath]
"""The path of each picture inside the folder or zip, by its name there."""
Tails = Mapping[str, tuple[str, ...]]
"""The part of each picture's path that may be the name CLASS/NAME of a training image."""


@dataclass(frozen=True)
class Placed:
    """The file of each training image that is replaced, by position.

    `is_copy` says that the files have the names of the clean ones, and not their positions.
    """

    files: dict[int, str]
    is_copy: bool


def placed(pictures: Pictures, dataset: Dataset, who: str) -> Placed:
    """Return which training image each picture replaces.

    The number in a file's name is a position. If the clean set was read from a folder, a changed
    copy of it may keep the names CLASS/NAME of its files instead, with other endings if need be,
    and a `test/` or `val/` next to a `train/` is not read then. A `train/` says that names are
    meant; without one, files that may be meant in either way are refused.

    Raises:
        PoisonError: the names fit neither, or both, or two files replace the same image.
    """
    fault: PoisonError | None = None
    numbered: dict[int, str] | None = None
    try:
        numbered = _by_number(pictures, dataset, who)
    except PoisonError as error:
        fault = error
    copy = _as_copy(pictures, dataset, who)
    if numbered is not None and not _agrees(numbered, pictures, dataset) and copy.is_complete:
        numbered = None
    if numbered is not None and (not copy.is_complete or copy.files == numbered):
        return Placed(numbered, False)
    if numbered is not None and not copy.has_train:
        raise PoisonError(
            f"{who}: the numbers in its files' names may be positions in the training set, or the "
            f"names that the files of {dataset.name} have; put all files into one folder if they "
            "are positions, and the class folders into a folder train/ if they are names"
        )
    if copy.is_complete:
        return Placed(copy.files, True)
    if fault is None or copy.found > len(copy.strays):
        raise PoisonError(
            f"{who}: {copy.found} files are named as training images of {dataset.name}, and "
            f"{shorten(copy.strays[0])} is not, or is named as another file is; rename or remove it"
        )
    raise fault


def _by_number(pictures: Pictures, dataset: Dataset, who: str) -> dict[int, str]:
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


def _agrees(numbered: Mapping[int, str], pictures: Pictures, dataset: Dataset) -> bool:
    """Return whether every file that lies in the folder of a class is of an image of that class."""
    label_of = {name: label for label, name in enumerate(dataset.class_names)}
    labels = dataset.train.labels.tolist()
    folders = ((i, printable(pictures[name].parent.name)) for i, name in numbered.items())
    return all(label_of.get(folder, labels[i]) == labels[i] for i, folder in folders)


@dataclass(frozen=True)
class _Copy:
    """The pictures as files of a changed copy of the clean set's folder.

    Attributes:
        files: the names of files by position.
        strays: files that have no name of a training image, or the name of one that is taken.
        has_train: whether they lie in a folder `train/`.
    """

    files: dict[int, str]
    strays: list[str]
    has_train: bool

    @property
    def found(self) -> int:
        """How many files have the name of a training image."""
        return len(self.files)

    @property
    def is_complete(self) -> bool:
        """Whether all files have one."""
        return bool(self.files) and not self.strays


def _as_copy(pictures: Pictures, dataset: Dataset, who: str) -> _Copy:
    """Return the reading as a copy that names the most training images."""
    best = _Copy({}, [], False)
    if dataset.train_files:
        positions = _positions(dataset.train_files)
        for tails, has_train in _readings(pictures, PurePath(who).name):
            files: dict[int, str] = {}
            strays = []
            for name, tail in tails.items():
                place = positions.get(_joined(tail), positions.get(_joined(tail, stem=True)))
                if place is None or place in files:
                    strays.append(name)
                else:
                    files[place] = name
            best = max(best, _Copy(files, strays, has_train), key=lambda copy: copy.found)
    return best


def _readings(pictures: Pictures, root: str) -> Iterator[tuple[Tails, bool]]:
    """Yield the paths below each folder that holds all pictures, and whether that is `train/`.

    What lies in `test/` or `val/` is no copy of training images.
    """
    folders = zip(*(path.parts[:-1] for path in pictures.values()), strict=False)
    shared = [each[0] for each in takewhile(lambda names: len(set(names)) == 1, folders)]
    for depth, above in enumerate([root, *shared]):
        tails = {name: path.parts[depth:] for name, path in pictures.items()}
        if above not in _TESTS:
            yield tails, above == "train"
        inside = {name: tail[1:] for name, tail in tails.items() if tail[0] == "train"}
        if inside and {tail[0] for tail in tails.values()} - {"train"} <= _TESTS:
            yield inside, True


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
