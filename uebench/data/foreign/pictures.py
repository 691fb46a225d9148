"""Readers of image files, `<index>.png`: in a folder, in class folders, or in a zip of either.

The index, which is the position in the clean training set, comes from the file's name alone: its
digits, with nothing but letters, `_` or `-` before them. A folder named after a class, or after its
number, gives the label. `labels.csv` (index, label) and `meta.json` are read if they are present.
A changed copy of the folder that the clean set was read from needs no index: its files keep their
names CLASS/NAME, which say what they replace.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ...common.errors import UserError
from ...common.spec import printable, shorten
from ...common.text import escaped
from ...store.arrays import zeros
from ..dataset import Dataset, DatasetError
from ..folders import is_hidden, report_unused, walk
from ..image_files import IMAGE_SUFFIXES, as_rgb, opened_image, without_pillows_warnings
from ..poison import PoisonError
from .archives import Archive
from .contents import Foreign, Numbers
from .limits import Limits
from .placing import placed

RECORD_BYTES = 2**20
"""Largest size of a meta.json in bytes."""

Read = Callable[[str], bytes]


def read_folder(path: Path, dataset: Dataset) -> Foreign:
    """Return the images of a folder tree.

    Raises:
        PoisonError: a link leads outside, a name has no index, or an image has another size.
    """
    names: list[str] = []
    limits, root = Limits.of(dataset), path.resolve()
    for entry, _ in walk(root):
        inside = entry.relative_to(root).as_posix()
        if entry.is_symlink() and not _leads_inside(entry, root):
            raise PoisonError(f"{path}: {shorten(inside)} is a link that leads outside; copy it")
        if entry.is_file():  # reading a pipe would block forever
            names.append(inside)
        if len(names) > limits.members:
            raise PoisonError(
                f"{path} has more than {limits.members} files, more than a poison of "
                f"{limits.name} may have; give a folder of that poison alone"
            )

    def read(name: str) -> bytes:
        file = root / name
        try:
            _check_size(file.stat().st_size, limits, shorten(file.name))
            return file.read_bytes()
        except OSError as error:
            raise PoisonError(f"{shorten(file.name)} cannot be read: {error.strerror}") from None

    return _read_tree("folder", names, read, dataset, f"{path}")


def read_image_zip(archive: Archive, dataset: Dataset) -> Foreign:
    """Return the images of a zip archive; nothing is unpacked to the disk.

    Raises:
        PoisonError: as for `read_folder`.
    """
    path, limits = archive.path, archive.limits

    def read(name: str) -> bytes:
        _check_size(archive.sizes[name], limits, f"{path}: {shorten(name)}")
        return archive.read(name)

    return _read_tree("zip", list(archive.sizes), read, dataset, f"{path}")


def _leads_inside(link: Path, root: Path) -> bool:
    """Return whether a link leads to something inside a folder; a circular link does not."""
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # Python raised RuntimeError for circular links until 3.13
        return False


def _check_size(n_bytes: int, limits: Limits, who: str) -> None:
    """Raise PoisonError if a file is larger than any image, list of labels or record."""
    most = max(limits.picture_bytes, RECORD_BYTES, 32 * limits.n)
    if n_bytes > most:
        raise PoisonError(
            f"{who} has {n_bytes:,} bytes; an image of {limits.name}, a list of labels or a "
            f"meta.json needs at most {most:,}"
        )


def _read_tree(form: str, names: list[str], read: Read, dataset: Dataset, who: str) -> Foreign:
    limits = Limits.of(dataset)
    paths = {name: PurePosixPath(name.replace("\\", "/")) for name in names}
    visible = {n: p for n, p in paths.items() if not any(map(is_hidden, p.parts))}
    pictures = {n: p for n, p in visible.items() if p.suffix.lower() in IMAGE_SUFFIXES}
    if not pictures:
        files = ", ".join(shorten(name) for name in list(visible)[:8]) or "nothing"
        raise PoisonError(
            f"{who} has no images named <index>.png, .bmp, .jpg or .jpeg; it has {files}; give "
            "numbered pictures, or one file of arrays by itself"
        )
    place = placed(pictures, dataset, who)
    by_index = place.files
    index = np.array(sorted(by_index))
    order = [by_index[i] for i in sorted(by_index)]
    images = zeros((len(order), *limits.shape[1:], limits.shape[0]), torch.uint8).numpy()
    with without_pillows_warnings():
        for i, name in enumerate(order):
            images[i] = _decode(read(name), limits, f"{who}: {shorten(name)}")
    arrays: dict[str, Numbers] = {"images": images, "index": index}
    not_read = sorted(set(pictures).difference(order))
    others = {name: path for name, path in visible.items() if name not in pictures}
    read_pictures = [pictures[name] for name in order]
    if listed := _beside(read_pictures, others, "labels.csv"):
        arrays["labels"] = _listed(read(listed), index, f"{who}: labels.csv")
    elif not place.is_copy:
        labels = _from_folders(read_pictures, dataset.class_names, who)
        arrays |= {} if labels is None else {"labels": labels}
    recorded = _beside(read_pictures, others, "meta.json")
    record = parse_record(read(recorded), f"{who}: meta.json") if recorded else {}
    unused = [name for name in others if name not in (listed, recorded)]
    report_unused(escaped(who), sorted(map(escaped, unused)), "not images")
    report_unused(escaped(who), list(map(escaped, not_read)), "not training images")
    unread = dict.fromkeys(unused, "a file") | dict.fromkeys(not_read, "a test image")
    return Foreign(form, arrays, record, unread)


def _beside(
    pictures: Sequence[PurePosixPath], others: Mapping[str, PurePosixPath], name: str
) -> str:
    """Return the file of this name in the folder that holds all pictures, or nearest above it.

    A file of the same name in another folder describes something else. Nothing if there is none.
    """
    parents = {path.parent for path in pictures}
    common = set.intersection(*({parent, *parent.parents} for parent in parents))
    found = [file for file, path in others.items() if path.name == name and path.parent in common]
    return max(found, key=lambda file: len(others[file].parts), default="")


def _decode(data: bytes, limits: Limits, who: str) -> Numbers:
    """Return an image as uint8 [h, w, c]; its size is checked before it is decoded."""
    c, h, w = limits.shape
    try:
        with opened_image(io.BytesIO(data), who) as image:
            mode = image.mode
            if sorted(image.size) == sorted((w, h)):
                image, brightest = as_rgb(image, who)
                if brightest is not None:
                    raise PoisonError(f"{who} has {mode} pixels; 8-bit grey or colour is needed")
            if image.size != (w, h):
                raise PoisonError(
                    f"{who} is {image.size[0]}x{image.size[1]} px, those of {limits.name} are "
                    f"{w}x{h}; give the data set that it was made from"
                )
            return np.asarray(image.convert("L") if c == 1 else image).reshape(h, w, c)
    except DatasetError as error:
        raise PoisonError(f"{error}") from None


def _listed(data: bytes, index: Numbers, who: str) -> Numbers:
    """Return the labels of a labels.csv for the images at `index`."""
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        labels = {int(row["index"]): int(row["label"]) for row in rows}
        return np.array([labels[i] for i in index.tolist()], np.int64)
    except KeyError as error:
        raise PoisonError(
            f"{who} has no entry for {error}; it needs the columns index,label and a row per image"
        ) from None
    except (ValueError, TypeError, csv.Error, OverflowError) as error:
        raise PoisonError(f"{who} is not a list of index,label ({shorten(str(error))})") from None


def _from_folders(
    paths: list[PurePosixPath], class_names: Sequence[str], who: str
) -> Numbers | None:
    """Return the labels that class folders give, or None if there are no class folders."""
    folders = list(dict.fromkeys(printable(path.parent.name) for path in paths))
    if len({path.parent for path in paths}) == 1:
        return None
    names = list(class_names)
    if all(name in names for name in folders):
        labels = {name: names.index(name) for name in folders}
    elif all(re.fullmatch("[0-9]{1,6}", f) and int(f) < len(names) for f in folders):
        labels = {name: int(name) for name in folders}
    else:
        wrong = next(name for name in folders if name not in names)
        raise PoisonError(
            f"{who}: folder {shorten(wrong)} is not a class of the data set, which has "
            f"{', '.join(names[:12])}; name folders by class or number, or use one folder"
        )
    return np.array([labels[printable(path.parent.name)] for path in paths], np.int64)


def _no_number(text: str) -> None:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise UserError(text)


def parse_record(data: bytes, who: str) -> dict[str, Any]:
    """Return the record in a meta.json, which the message calls `who`.

    Raises:
        PoisonError: it is not JSON of names and values.
    """
    try:
        record = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise PoisonError(f"{who} is not JSON of names and values; fix or remove it")
    return record
