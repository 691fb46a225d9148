"""Load data sets by name: `cifar10`, `imagenet_subset[size=96]`, `folder:PATH` or `npz:PATH`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..common.spec import (
    did_you_mean,
    format_options,
    format_spec,
    normalise,
    parse_spec,
    shorten,
    split_path,
    unknown,
)
from . import sources
from .catalog import DATASETS
from .dataset import Dataset, DatasetError, first_of_each_class, from_splits
from .imagenet import imagenet_subset, mini_imagenet, tiny_imagenet
from .split import Split
from .synthetic import make_synthetic

_FIRST = ("n_train", "n_test")
TREES: dict[str, Callable[..., Dataset]] = {
    "imagenet_subset": imagenet_subset,
    "tiny_imagenet": tiny_imagenet,
    "mini_imagenet": mini_imagenet,
}
"""Data sets of image files in `--data-dir`, which are decoded once into the store."""


OPTION_MEANINGS = {
    "n_train": "Number of training images: the first ones of each class; synthetic draws as many.",
    "n_test": "Number of test images, likewise.",
    "n_classes": "Number of classes: the first ones.",
    "size": "Pixels of a side, to which images are resized; synthetic draws them in this size.",
    "seed": "Seed of the pictures.",
}
"""What the options of data sets mean."""


def dataset_options(name: str) -> dict[str, int | None]:
    """Return the options of a data set with their defaults; None takes what there is."""
    if name == "synthetic":
        parameters = inspect.signature(make_synthetic).parameters
        return {key: parameter.default for key, parameter in parameters.items()}
    if name in TREES:
        own = inspect.signature(TREES[name]).parameters
        return {k: own[k].default for k in own if k in OPTION_MEANINGS}
    return dict.fromkeys((*_FIRST, "size") if name == "folder" else _FIRST)


def load_dataset(
    spec: str,
    data_dir: Path | str | None = None,
    download: bool = False,
    *,
    outline: bool = False,
) -> Dataset:
    """Return a data set by name, such as `cifar10[n_train=5000]` or `npz:FILE`.

    Args:
        spec: a name with options in brackets. `n_train` and `n_test` are numbers of images: the
            first ones of each class, or as many as `synthetic` generates. `synthetic` also has
            `n_classes`, `size` and `seed`, `folder:` has `size`, and `imagenet_subset` has
            `n_classes` and `size`, and `mini_imagenet` has `size`.
        data_dir: the folder of torchvision's data sets and of ImageNet; by default
            `$UEBENCH_DATA` or a cache folder.
        download: download a data set that is missing.
        outline: set it if the pixels are not needed; images that take long are not decoded.

    Raises:
        KeyError: no such data set, with the nearest name.
        DatasetError: it cannot be read, or an option is wrong.
    """
    kind, colon, rest = spec.strip().partition(":")
    if colon and kind in ("npz", "folder"):
        typed, tail = split_path(rest)
        path = Path(typed).expanduser()
        given = parse_spec(kind + tail).options
        options = _whole_numbers(kind, given, dataset_options(kind))
        size = options.pop("size", None)
        try:
            loaded = sources.npz(path) if kind == "npz" else sources.folder(path, size)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DatasetError(f"{kind}:{shorten(str(path))} cannot be read: {reason}") from None
        if size is not None:
            loaded = replace(loaded, name=f"{loaded.name}[size={size}]")
        return _first(loaded, options)
    _refuse_bare_path(spec.strip())
    name, given = parse_spec(spec)
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    known = dataset_options(name)
    options = _whole_numbers(name, given, known)
    changed = {k: v for k, v in options.items() if v != known[k]}
    if name == "synthetic":
        return sources.synthetic(format_spec(name, changed), **options)
    if DATASETS[name].torchvision:
        folder = Path(data_dir).expanduser() if data_dir is not None else None
        return _first(sources.torchvision_set(name, folder, download), options)
    root = Path(data_dir).expanduser() if data_dir is not None else sources.default_data_dir()
    return TREES[name](format_spec(name, changed), root, **options, outline=outline)


def _refuse_bare_path(spec: str) -> None:
    """Refuse the path of a file or folder whose kind is not named.

    Raises:
        DatasetError: it is one; the message says how to write it.
    """
    typed = split_path(spec)[0]
    brief = spec if len(spec) <= 200 else f"{spec[:200]}..."
    if typed.endswith(".npz"):
        raise DatasetError(f"{brief} is the name of a file; write npz:{brief}")
    is_name = normalise(typed.lower()) in DATASETS
    is_here = os.path.exists(typed)  # noqa: PTH110 - Path.exists raises for names that are too long
    if "/" in typed or typed in (".", "..") or (is_here and not is_name):
        raise DatasetError(
            f"{brief} is a path; write folder:{brief} for a folder of images, or npz:FILE.npz"
        )


def as_dataset(dataset: Dataset | str) -> Dataset:
    """Return a data set that is given itself or by its name.

    Raises:
        DatasetError: it is neither, or cannot be read.
    """
    if isinstance(dataset, str):
        return load_dataset(dataset)
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            f"a data set or its name is needed, got a {type(dataset).__name__}; make one of arrays "
            "with uebench.data.from_arrays(name, (train_images, train_labels), (test_images, "
            "test_labels), class_names)"
        )
    return dataset


def _whole_numbers(name: str, given: dict[str, Any], known: Any) -> dict[str, int]:
    """Return options as whole numbers, which all options of data sets are."""
    options = {}
    for key, value in given.items():
        if key not in known:
            near = did_you_mean(key, known)
            raise DatasetError(f"{name} has no option {key}{near}; it has {', '.join(known)}")
        try:
            options[key] = int(value)
        except ValueError:
            raise DatasetError(f"{name}: {key} must be a whole number, got {value}") from None
        if options[key] < (0 if key == "seed" else 1):
            raise DatasetError(f"{name}: {key} must be positive, got {value}")
    return options


def _first(dataset: Dataset, options: dict[str, int]) -> Dataset:
    """Return the first images of each class, with their number in the data set's name."""
    if not options:
        return dataset
    parts = list[Split]()
    files = dataset.train_files
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        n = options.get(f"n_{part}", len(split))
        if n > len(split):
            raise DatasetError(
                f"{dataset.name}: n_{part}={n} is more than the {len(split)} images there are"
            )
        index = torch.from_numpy(first_of_each_class(split.labels.numpy(), n))
        parts.append(split.subset(index))
        if part == "train" and files:
            files = tuple(files[i] for i in index)
    name, others = split_path(dataset.name)
    text = ",".join(filter(None, [others[1:-1], format_options(options)]))
    made = from_splits(dataset.name, *parts)
    return replace(made, name=f"{name}[{text}]", train_files=files)
