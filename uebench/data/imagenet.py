"""ImageNet subset, Tiny ImageNet and mini-ImageNet: trees of images, decoded once into the store.

Source: arXiv:2303.15127, section 4.1: the first 100 classes by the name of their folder, 0.875
centre crop, 224 px. The paper leaves two choices open: we crop a square of 0.875 of the shorter
side, which does the usual resize to 256 and crop to 224 in one step, and use Pillow's bilinear
filter. Tiny ImageNet (200 classes, 64 px) is read as it is published, with a list of the classes
of its test images in val/; mini-ImageNet (100 classes, 84 px) as a tree with a folder per class.

All images are read from disk once, each straight to its place in a file, which becomes the entry of
the data set in the store. The names, sizes and times of the image files identify this entry later.
Keys of cells contain the hash of the decoded images. Planning needs no pixels: if the images were
never decoded, no cell of them was ever computed.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..common.spec import printable
from ..common.text import escaped
from ..store.store import Store, key_of
from .dataset import Dataset, DatasetError, from_splits, keep_dataset, stored_dataset
from .folders import Files, class_folders, decode, list_files, report_unused
from .split import Split

log = logging.getLogger(__name__)
VERSION = 1
"""Increase this when the decoded images change."""
CROP = 0.875
"""Share of the shorter side that the centre crop keeps."""


def imagenet_subset(
    name: str,
    root: Path,
    n_classes: int = 100,
    size: int = 224,
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    outline: bool = False,
) -> Dataset:
    """Return the first classes of the ImageNet folder in `root`; decode them if the store has none.

    Args:
        name: name of the data set in tables.
        root: a folder with train/CLASS/IMAGE and val/CLASS/IMAGE, in it or in its imagenet/.
        n_classes: number of classes, in the order of the names of their folders.
        size: pixels of a side.
        n_train: number of training images, the first ones of each class; all by default.
        n_test: number of test images, likewise.
        outline: return everything but the pixels, which is enough for a plan. The images lie on
            torch's device `meta`, and nothing is decoded or written. If the images were never
            decoded, the fingerprint is a placeholder that matches no data set.

    Raises:
        DatasetError: the folder is missing or lacks classes, or an image cannot be read.
    """
    folder, names = _class_folders(name, root, n_classes)
    parts = (
        list_files(folder / "train", names).first(n_train, "n_train"),
        list_files(folder / "val", names).first(n_test, "n_test"),
    )
    return _decoded(name, folder, parts, names, size, CROP, outline)


def tiny_imagenet(
    name: str,
    root: Path,
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    outline: bool = False,
) -> Dataset:
    """Return Tiny ImageNet from the folder in `root`; decode it if the store has it not.

    Args:
        name: name of the data set in tables.
        root: the folder tiny-imagenet-200, or the one around it.
        n_train: number of training images, the first ones of each class; all by default.
        n_test: number of images of val/, whose classes are in val_annotations.txt, likewise.
        outline: as for `imagenet_subset`.

    Raises:
        DatasetError: the folder is missing, lacks classes or annotations, or has a bad image.
    """
    folder = _folder_with(name, root, "tiny-imagenet-200", "val/val_annotations.txt")
    names = class_folders(folder / "train")
    train, test = list_files(folder / "train", names), _annotated(folder / "val", names)
    # a list of boxes lies next to the images of a class, which is not an error
    parts = Files(train.paths, train.labels), test
    parts = parts[0].first(n_train, "n_train"), parts[1].first(n_test, "n_test")
    return _decoded(name, folder, parts, names, 64, 1.0, outline)


def mini_imagenet(
    name: str,
    root: Path,
    size: int = 84,
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    outline: bool = False,
) -> Dataset:
    """Return mini-ImageNet from the folder in `root`; decode it if the store has it not.

    Args:
        name: name of the data set in tables.
        root: the folder mini-imagenet with train/CLASS/IMAGE and test/CLASS/IMAGE, or the one
            around it.
        size: pixels of a side, to which the centre square of each image is resized.
        n_train: number of training images, the first ones of each class; all by default.
        n_test: number of test images, likewise.
        outline: as for `imagenet_subset`.

    Raises:
        DatasetError: the folder is missing, lacks classes, or has an image that cannot be read.
    """
    folder = _folder_with(name, root, "mini-imagenet", "test/")
    names = class_folders(folder / "train")
    parts = (
        list_files(folder / "train", names).first(n_train, "n_train"),
        list_files(folder / "test", names).first(n_test, "n_test"),
    )
    return _decoded(name, folder, parts, names, size, 1.0, outline)


def _folder_with(name: str, root: Path, called: str, needed: str) -> Path:
    """Return the folder with train/ and what else is needed: `root`, or one in it.

    Raises:
        DatasetError: neither has both.
    """
    for folder in (root, root / called):
        if (folder / "train").is_dir() and (folder / needed).exists():
            return folder
    raise DatasetError(
        f"{name} is not in {escaped(root)}; give --data-dir DIR of a folder with {called}/train/ "
        f"and {called}/{needed} (it cannot be downloaded for you)"
    )


def _annotated(part: Path, names: list[str]) -> Files:
    """Return the images that val_annotations.txt lists, in order of class and name.

    Raises:
        DatasetError: a line names a class that train/ lacks, or an image that does not exist.
    """
    rows = []
    listing = part / "val_annotations.txt"
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        file, _, rest = line.partition("\t")
        path, label = part / "images" / Path(file).name, rest.partition("\t")[0]
        if label not in names or not path.is_file():
            wrong = f"the class {printable(label)}" if label not in names else escaped(path)
            raise DatasetError(
                f"{escaped(listing)}, line {number}: {wrong} does not exist; unpack the data set "
                "again"
            )
        rows.append((names.index(label), path))
    rows.sort(key=lambda row: (row[0], row[1].name))
    return Files([path for _, path in rows], np.asarray([k for k, _ in rows], dtype=np.int64))


def _decoded(
    name: str,
    folder: Path,
    parts: tuple[Files, Files],
    names: list[str],
    size: int,
    crop: float,
    outline: bool,
) -> Dataset:
    """Return a data set from the store, or decode its images and keep them there."""
    key = _listing_key(folder, parts, names, size, crop)
    store = Store()
    if outline:
        return _outline(name, parts, names, size, store.read("decoded", key))
    with store.lock("decoded", key):
        known = store.read("decoded", key)
        if known is not None:
            stored = stored_dataset(store, name, known[1]["fingerprint"])
            if stored is not None:
                return stored
        log.warning(
            "%s: decoding %s images once, into the store %s, where every process maps them",
            *(name, sum(len(p.paths) for p in parts), store.root),
        )
        report_unused(name, [file for part in parts for file in part.unused])
        # Published accuracies on ImageNet are of images that are not turned as EXIF says.
        splits = (
            decode(part, (size, size), names, lambda i: _crop(i, size, crop), upright=False)
            for part in parts
        )
        dataset = from_splits(name, *splits)
        keep_dataset(store, dataset)
        store.write("decoded", key, {"fingerprint": dataset.fingerprint, "name": name})
    return stored_dataset(store, name, dataset.fingerprint) or dataset


def _class_folders(name: str, root: Path, n_classes: int) -> tuple[Path, list[str]]:
    """Return the folder of ImageNet in `root`, and the names of its first classes.

    Raises:
        DatasetError: it is missing, or lacks classes.
    """
    folder = next((f for f in (root, root / "imagenet") if (f / "train").is_dir()), None)
    if folder is None or not (folder / "val").is_dir():
        raise DatasetError(
            f"{name} is not in {escaped(folder or root)}; give --data-dir DIR of a folder with "
            "train/CLASS/IMAGE and val/CLASS/IMAGE, as ImageNet has them (it cannot be downloaded "
            "for you)"
        )
    names = class_folders(folder / "train")
    if len(names) < n_classes:
        raise DatasetError(
            f"{escaped(folder / 'train')} has {len(names)} class folders, {n_classes} are needed; "
            f"give the complete ImageNet, or {name.partition('[')[0]}[n_classes={len(names)}]"
        )
    return folder, names[:n_classes]


def _outline(
    name: str,
    parts: tuple[Files, ...],
    names: list[str],
    size: int,
    known: tuple[Any, dict[str, Any]] | None,
) -> Dataset:
    """Return a data set without pixels: using its images raises an error."""
    train, test = (
        Split(
            torch.empty((len(part.paths), 3, size, size), dtype=torch.uint8, device="meta"),
            torch.from_numpy(part.labels),
            tuple(map(printable, names)),
        )
        for part in parts
    )
    if known is None:
        log.warning(
            "%s has not been decoded yet, so no cell of it is stored; a run decodes it first", name
        )
    return Dataset(name, train, test, known[1]["fingerprint"] if known else f"undecoded: {name}")


def _crop(image: Image.Image, size: int, crop: float) -> Image.Image:
    """Return the centre square of a share of the shorter side, resized."""
    side = crop * min(image.size)
    left, top = ((whole - side) / 2 for whole in image.size)
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def _listing_key(
    folder: Path, parts: tuple[Files, ...], names: list[str], size: int, crop: float
) -> str:
    """Return a key that changes with the name, size or time of any file; no file is read."""
    digest = hashlib.sha256()
    for part in parts:
        for path in part.paths:
            status = path.stat()
            place = os.fsencode(path.relative_to(folder).as_posix())
            digest.update(place + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    recipe = {"what": "decoded", "version": VERSION, "crop": crop, "size": size, "classes": names}
    return key_of({**recipe, "files": digest.hexdigest()})
