"""Load data sets from torchvision, a folder tree or an .npz file, or generate one."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from ..common.errors import UserError
from ..common.spec import printable
from ..common.text import escaped
from .catalog import DATASETS
from .dataset import Dataset, DatasetError, error_text, from_arrays, from_splits
from .folders import check_classes, class_folders, decode, list_files, report_unused
from .packed import check_npz
from .synthetic import make_synthetic


def default_data_dir() -> Path:
    """Return `$UEBENCH_DATA` if it is set, else a folder in the platform's cache."""
    chosen = os.environ.get("UEBENCH_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("uebench")) / "data"


def synthetic(name: str, **options: int) -> Dataset:
    """Return the generated data set; see `make_synthetic` for its options."""
    try:
        generated = make_synthetic(**options)
    except ValueError as error:
        raise DatasetError(f"{name}: {error}") from None
    train, test = generated[0:2], generated[2:4]
    return from_arrays(name, train, test, generated.class_names)


def torchvision_set(name: str, data_dir: Path | None, download: bool) -> Dataset:
    """Return a data set of the catalogue as torchvision reads it from `data_dir`."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise DatasetError(
            f"{name} is read by torchvision, which does not load ({str(error).splitlines()[0]}); "
            "install the torchvision that belongs to this torch, or use npz:PATH"
        ) from None
    root = str(data_dir or default_data_dir())
    reader = getattr(datasets, DATASETS[name].torchvision)
    if "split" in inspect.signature(reader).parameters:
        choices: list[dict[str, Any]] = [{"split": "train"}, {"split": "test"}]
    else:
        choices = [{"train": True}, {"train": False}]
    try:
        parts = [reader(root, download=download, **choice) for choice in choices]
    except (RuntimeError, OSError) as error:
        if download:
            raise DatasetError(
                f"{name} could not be downloaded to {root}: {error}; without a network give "
                "--data-dir DIR of a folder that has what torchvision downloads"
            ) from None
        raise DatasetError(
            f"{name} is not in {root}; add --download to fetch it, or --data-dir to say where it is"
        ) from None
    names = getattr(parts[0], "classes", DATASETS[name].labels)
    return from_arrays(name, _torchvision_arrays(parts[0]), _torchvision_arrays(parts[1]), names)


def _torchvision_arrays(part: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return images [n, h, w, c] and labels of a torchvision data set, in whichever layout."""
    images = np.asarray(part.data)
    if images.ndim == 3:  # grey, as in MNIST
        images = images[..., None]
    elif images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    return images, np.asarray(part.targets if hasattr(part, "targets") else part.labels)


def npz(path: Path) -> Dataset:
    """Return the data set of an .npz file; `docs/using.md` lists the arrays it must have."""
    name = printable(path.stem)
    needed = ["train_images", "train_labels", "test_images", "test_labels"]
    if not path.is_file():
        reason = "is not a file" if path.exists() else "no such file"
        raise DatasetError(f"{path}: {reason}; give npz:PATH of an .npz file")
    try:
        headers = check_npz(path, [*needed, "class_names"])
        missing = [key for key in needed if key not in headers]
        if missing:
            hint = ""
            if missing == needed:
                hint = "; if it is a poison, give its clean data set here and `uebench import` it"
            raise DatasetError(
                f"{path} lacks {', '.join(missing)}; an .npz data set has {', '.join(needed)}{hint}"
            )
        for part in ("train", "test"):  # before images are unpacked, which may be many
            images, labels = (headers[f"{part}_{what}"].shape for what in ("images", "labels"))
            if images and labels and images[0] != labels[0]:
                raise DatasetError(
                    f"{path}: {images[0]} {part}_images but {labels[0]} {part}_labels; each image "
                    "needs one label"
                )
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[f"{key}.npy"] for key in needed]
            names = file["class_names.npy"] if "class_names" in headers else None
    except DatasetError:
        raise
    except UserError as error:
        raise DatasetError(f"{path}: {error}") from None
    except Exception as error:  # numpy and zipfile raise many kinds of errors for broken files
        raise DatasetError(f"{path} is not a readable .npz file ({error_text(error)})") from None
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DatasetError(f"{path}: class_names must be text [k], got {names.dtype}")
    return from_arrays(name, (arrays[0], arrays[1]), (arrays[2], arrays[3]), names)


def folder(path: Path, size: int | None) -> Dataset:
    """Return the data set of a tree train/CLASS/IMAGE and test/CLASS/IMAGE (or val/).

    Images are read as RGB. If `size` is given, they are resized to squares of that side in pixels.
    """
    where = escaped(path)
    if not path.is_dir():
        raise DatasetError(f"{where}: no such folder; give folder:PATH of a tree train/CLASS/IMAGE")
    if not (path / "train").is_dir():
        raise DatasetError(f"{where} has no train/ folder; a tree train/CLASS/IMAGE is needed")
    tests = [path / part for part in ("test", "val") if (path / part).is_dir()]
    if not tests:
        raise DatasetError(f"{where} has neither a test/ nor a val/ folder; one is needed")
    name = printable(path.resolve().name)
    names = class_folders(path / "train")
    check_classes(tests[0], names)
    parts = [list_files(part, names) for part in (path / "train", tests[0])]
    unused = [file for part in parts for file in part.unused]
    report_unused(name, [*unused, *(f"{part.name}/" for part in tests[1:])])

    def resized(image: Image.Image) -> Image.Image:
        if size is None or image.size == (size, size):
            return image
        return image.resize((size, size), Image.Resampling.BILINEAR)

    train = decode(parts[0], None if size is None else (size, size), names, resized)
    test = decode(parts[1], train.shape[1:], names, resized)
    files = (file.relative_to(path / "train").as_posix() for file in parts[0].paths)
    return replace(from_splits(name, train, test), train_files=tuple(files))
