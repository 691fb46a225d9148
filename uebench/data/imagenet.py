"""ImageNet subset: the first classes of an ImageNet folder, decoded once into the store.

Source: arXiv:2303.15127, section 4.1: the first 100 classes by the name of their folder, 0.875
centre crop, 224 px. The paper leaves two choices open: we crop a square of 0.875 of the shorter
side, which does the usual resize to 256 and crop to 224 in one step, and use Pillow's bilinear
filter.

All images are read from disk once, each straight to its place in a file, which becomes the entry of
the data set in the store. The names, sizes and times of the image files identify this entry later.
Keys of cells contain the hash of the decoded images. Planning needs no pixels: if the images were
never decoded, no cell of them was ever computed.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..store.arrays import zeros
from ..store.store import Store, key_of
from .dataset import (
    Dataset,
    DatasetError,
    error_text,
    first_of_each_class,
    from_splits,
    keep_dataset,
    stored_dataset,
)
from .split import Split

log = logging.getLogger(__name__)
VERSION = 1
"""Increase this when the decoded images change."""
CROP = 0.875
"""Share of the shorter side that the centre crop keeps."""
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
"""The formats that are read; other readers of Pillow may start programs."""
MAX_PIXELS = 8192**2
"""Largest number of pixels of one image; no data set for classification has larger ones."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
THREADS = 8
"""Images that are decoded in parallel; Pillow releases Python's lock while it decodes."""


@dataclass(frozen=True)
class Files:
    """The image files of one part, with their labels."""

    paths: list[Path]
    labels: NDArray[np.int64]

    def first(self, n: int | None, name: str) -> Files:
        """Return `n` files, the first ones of each class, or all if `n` is None."""
        if n is None:
            return self
        if n > len(self.paths):
            raise DatasetError(f"{name}={n} is more than the {len(self.paths)} images available")
        chosen = first_of_each_class(self.labels, n)
        return Files([self.paths[i] for i in chosen], self.labels[chosen])


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
    key = _listing_key(folder, parts, names, size)
    store = Store()
    if outline:
        return _outline(name, parts, tuple(names), size, store.read("decoded", key))
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
        dataset = from_splits(
            name, *(decoded(p, (size, size), tuple(names), lambda i: _crop(i, size)) for p in parts)
        )
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
            f"{name} is not in {folder or root}; give --data-dir DIR of a folder with "
            "train/CLASS/IMAGE and val/CLASS/IMAGE, as ImageNet has them (it cannot be downloaded "
            "for you)"
        )
    names = sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir())
    if len(names) < n_classes:
        raise DatasetError(
            f"{folder / 'train'} has {len(names)} class folders, {n_classes} are needed; give the "
            f"complete ImageNet, or {name.partition('[')[0]}[n_classes={len(names)}]"
        )
    return folder, names[:n_classes]


def _outline(
    name: str,
    parts: tuple[Files, ...],
    names: tuple[str, ...],
    size: int,
    known: tuple[Any, dict[str, Any]] | None,
) -> Dataset:
    """Return a data set without pixels: using its images raises an error."""
    train, test = (
        Split(
            torch.empty((len(part.paths), 3, size, size), dtype=torch.uint8, device="meta"),
            torch.from_numpy(part.labels),
            names,
        )
        for part in parts
    )
    if known is None:
        log.warning(
            "%s has not been decoded yet, so no cell of it is stored; a run decodes it first", name
        )
    return Dataset(name, train, test, known[1]["fingerprint"] if known else f"undecoded: {name}")


def list_files(root: Path, names: list[str]) -> Files:
    """Return the image files of the classes in `root`, in order of path.

    Raises:
        DatasetError: a class has no folder or no image.
    """
    paths, labels = [], []
    for label, name in enumerate(names):
        folder = root / name
        inside = sorted(folder.glob("*")) if folder.is_dir() else []
        # a pipe may be named like an image, and reading it would block forever
        images = [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if not images:
            raise DatasetError(f"{folder} has no images; every class needs at least one")
        paths += images
        labels += [label] * len(images)
    return Files(paths, np.asarray(labels, dtype=np.int64))


def decoded(
    files: Files,
    size: tuple[int, int],
    names: tuple[str, ...],
    prepare: Callable[[Image.Image], Image.Image],
) -> Split:
    """Return RGB images as a split; a large split lies in a file instead of memory.

    Args:
        files: the images to read.
        size: height and width of the images that `prepare` returns.
        names: one per class.
        prepare: how to crop or resize an image that was read.

    Raises:
        DatasetError: an image cannot be read, or has another size.
    """
    n = len(files.paths)
    images = zeros((n, 3, *size), torch.uint8)

    def read(block: range) -> None:
        for i in block:
            path = files.paths[i]
            picture = prepare(open_image(path))
            if picture.size != size[::-1]:
                raise DatasetError(
                    f"{path} is {picture.size[0]}x{picture.size[1]} px, others are "
                    f"{size[1]}x{size[0]}; add [size=N] to resize all"
                )
            images[i] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    blocks = [range(start, min(start + 64, n)) for start in range(0, n, 64)]
    with ThreadPoolExecutor(THREADS) as pool:
        for done, _ in enumerate(pool.map(read, blocks)):
            if len(blocks) > 100 and done and done % (len(blocks) // 10) == 0:
                log.warning("%d of %d images decoded", done * 64, n)
    return Split(images, torch.from_numpy(files.labels), names)


def open_image(path: Path) -> Image.Image:
    """Return a file's image as RGB.

    Raises:
        DatasetError: it is not an image, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged below
            opened = Image.open(path, formats=_FORMATS)
        with opened as image:
            w, h = image.size
            if w * h <= MAX_PIXELS:
                return image.convert("RGB")
    except Exception as error:  # each format raises errors of its own
        raise DatasetError(f"{path} is not a readable image ({error_text(error)})") from None
    raise DatasetError(f"{path} has {w}x{h} px, at most {MAX_PIXELS:,} are read; scale it down")


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centre square of 0.875 of the shorter side, resized."""
    side = CROP * min(image.size)
    left, top = ((whole - side) / 2 for whole in image.size)
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def _listing_key(folder: Path, parts: tuple[Files, ...], names: list[str], size: int) -> str:
    """Return a key that changes with the name, size or time of any file; no file is read."""
    digest = hashlib.sha256()
    for part in parts:
        for path in part.paths:
            status = path.stat()
            place = path.relative_to(folder).as_posix()
            digest.update(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    recipe = {"what": "decoded", "version": VERSION, "crop": CROP, "size": size, "classes": names}
    return key_of({**recipe, "files": digest.hexdigest()})
