"""Read trees part/CLASS/IMAGE: which files are the images of which class, and their pixels.

The classes are the folders in `train/`, by name. Images may lie in subfolders of a class. Hidden
files and folders, and what operating systems leave behind, are passed over. Every other file that
is not used is reported.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..common.spec import printable
from ..common.text import escaped
from ..store.arrays import zeros
from .dataset import DatasetError, first_of_each_class
from .image_files import IMAGE_SUFFIXES, read_image, without_pillows_warnings
from .split import Split

log = logging.getLogger(__name__)
THREADS = 8
"""Images that are decoded in parallel; Pillow releases Python's lock while it decodes."""
DARKEST_WHITE = 0.25
"""Images with more than 8 bits that all stay below this share of white use another scale: a camera
with 12 or 14 bits stores them in 16, and they would become almost black."""
_LEFT_BEHIND = frozenset(
    ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found")
)
_NAMED = 5
"""Files named in a message; the others are counted."""


@dataclass(frozen=True)
class Files:
    """The image files of one part, with their labels, and the names of files that are not used."""

    paths: list[Path]
    labels: NDArray[np.int64]
    unused: tuple[str, ...] = ()

    def first(self, n: int | None, name: str) -> Files:
        """Return `n` files, the first ones of each class, or all if `n` is None."""
        if n is None:
            return self
        if n > len(self.paths):
            raise DatasetError(f"{name}={n} is more than the {len(self.paths)} images available")
        chosen = first_of_each_class(self.labels, n)
        return Files([self.paths[i] for i in chosen], self.labels[chosen], self.unused)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or is left behind by an operating system."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield every visible entry below `root`, and whether it is a folder, before its content.

    A folder that several paths lead to is entered once, links last. So links that lead in a
    circle end, and a link to a folder above `root` is not entered.
    """
    top = root.resolve()
    entered = {_identity(folder) for folder in top.parents}
    real, linked = [root], deque[Path]()
    while real or linked:
        folder = real.pop() if real else linked.popleft()
        if _identity(folder) in entered:
            continue
        entered.add(_identity(folder))
        with os.scandir(folder) as entries:
            visible = sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: e.name)
        for entry in visible:
            path, is_link = Path(entry.path), entry.is_symlink()
            is_folder = path.is_dir() if is_link else entry.is_dir()
            yield path, is_folder
            if is_folder:
                (linked if is_link else real).append(path)


def _identity(folder: Path) -> tuple[int, int]:
    """Return what two paths to one folder share."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def class_folders(part: Path) -> list[str]:
    """Return the names of the class folders of a part, sorted.

    Raises:
        DatasetError: there are none.
    """
    entries = [entry for entry in part.iterdir() if not is_hidden(entry.name)]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        n_images = sum(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)
        outside = f" ({n_images} images lie directly in it)" if n_images else ""
        raise DatasetError(
            f"{escaped(part)} has no class folders{outside}; one folder per class is needed"
        )
    return names


def list_files(part: Path, names: Sequence[str]) -> Files:
    """Return the image files of the classes in a part, class by class, in order of path.

    Raises:
        DatasetError: a class has no folder or no image.
    """
    paths: list[Path] = []
    labels: list[int] = []
    unused = sorted(p for p in part.iterdir() if not is_hidden(p.name) and not p.is_dir())
    for label, name in enumerate(names):
        images, others = _images_in(part / name)
        if not images:
            raise DatasetError(
                f"{escaped(part / name)} has no images; every class needs at least one, and "
                "what is not a class must not be there"
            )
        paths += images
        labels += [label] * len(images)
        unused += others
    unused_names = (escaped(path.relative_to(part.parent).as_posix()) for path in unused)
    return Files(paths, np.asarray(labels, dtype=np.int64), tuple(unused_names))


def _images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files below a folder, and the other files, each in order of path."""
    images: list[Path] = []
    others: list[Path] = []
    for path, is_folder in walk(folder) if folder.is_dir() else ():
        if not is_folder:
            # a pipe may be named like an image, and reading it would block forever
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            (images if is_image else others).append(path)
    return sorted(images), sorted(others)


def check_classes(part: Path, names: Sequence[str]) -> None:
    """Check that a part has no images of other classes than those of the training set.

    Raises:
        DatasetError: it has some; the message names their folders.
    """
    counts = {
        name: len(_images_in(part / name)[0]) for name in set(class_folders(part)).difference(names)
    }
    extra = [f"{escaped(name)} ({n} images)" for name, n in sorted(counts.items()) if n]
    if extra:
        raise DatasetError(
            f"{escaped(part)} has classes that train/ lacks: {listed(extra)}; add training "
            "images of them, or remove their folders"
        )


def listed(texts: Sequence[str]) -> str:
    """Return the first texts of a list, and how many more there are."""
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def report_unused(name: str, unused: Sequence[str], why: str = "not images of a class") -> None:
    """Log which files of a data set or a poison are not used, if there are any."""
    if unused:
        n_files = "1 file is" if len(unused) == 1 else f"{len(unused)} files are"
        log.warning("%s: %s not used (%s): %s", name, n_files, why, listed(unused))


def decode(
    files: Files,
    size: tuple[int, int] | None,
    names: Sequence[str],
    prepare: Callable[[Image.Image], Image.Image] = lambda image: image,
    *,
    upright: bool = True,
) -> Split:
    """Return the images of files as a split; a large split lies in a file instead of memory.

    Args:
        files: the images to read.
        size: height and width of the images that `prepare` returns; by default, the first one's.
        names: folder names of the classes.
        prepare: how to crop or resize an image that was read.
        upright: whether to turn photos as their EXIF data says.

    Raises:
        DatasetError: an image cannot be read, has another size, or would become almost black.
    """
    with without_pillows_warnings():  # here, since the threads share the filters
        if size is None:
            size = read_image(files.paths[0], upright=upright).image.size[::-1]
        n = len(files.paths)
        images = zeros((n, 3, *size), torch.uint8)
        brightest = np.full(n, np.nan)

        def read(block: range) -> None:
            for i in block:
                picture = read_image(files.paths[i], upright=upright)
                image = prepare(picture.image)
                if image.size != size[::-1]:
                    raise DatasetError(
                        f"{escaped(files.paths[i])} is {image.size[0]}x{image.size[1]} px, "
                        f"others are {size[1]}x{size[0]}; add [size=N] to resize all"
                    )
                images[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
                if picture.brightest is not None:
                    brightest[i] = picture.brightest

        blocks = [range(start, min(start + 64, n)) for start in range(0, n, 64)]
        with ThreadPoolExecutor(THREADS) as pool:
            for done, _ in enumerate(pool.map(read, blocks)):
                if len(blocks) > 100 and done and done % (len(blocks) // 10) == 0:
                    log.warning("%d of %d images decoded", done * 64, n)
    _check_scale(files, brightest)
    return Split(images, torch.from_numpy(files.labels), tuple(map(printable, names)))


def _check_scale(files: Files, brightest: NDArray[np.float64]) -> None:
    """Raise DatasetError if the images with more than 8 bits use only a small part of the range."""
    deep = np.flatnonzero(~np.isnan(brightest))
    top = brightest[deep].max(initial=0)
    if 0 < top <= DARKEST_WHITE:
        raise DatasetError(
            f"{escaped(files.paths[deep[0]])}: the {len(deep)} images with more than 8 bits "
            f"per value reach {top:.1%} of white, and would become almost black; scale them to "
            "0..255 and save them as 8-bit images"
        )
