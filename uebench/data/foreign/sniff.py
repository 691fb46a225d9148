"""Which reader a foreign file needs: decided by what it begins with, not by its name."""

from __future__ import annotations

from pathlib import Path

from .. import Dataset
from ..poison import PoisonError
from .archives import Archive
from .arrays import read_npy, read_npz, read_safetensors
from .contents import Foreign
from .limits import Limits
from .pickles import read_pickle
from .pictures import RECORD_BYTES, parse_record, read_folder, read_image_zip
from .tensors import TORCH_PICKLE, is_old_torch, read_torch

ACCEPTED = "a folder or zip of <index>.png, .npy, .npz, .safetensors, .pt or a pickle of arrays"


def read_foreign(path: Path, dataset: Dataset) -> Foreign:
    """Return the arrays of whatever an author released.

    Raises:
        PoisonError: no such file, none of the known kinds, or one that cannot be trusted.
    """
    limits = Limits.of(dataset)
    try:
        if path.is_dir():
            return read_folder(path, limits, dataset.class_names)
        if not path.is_file():
            there = path.exists() or path.is_symlink()
            reason = "is neither a file nor a folder" if there else "no such file"
            raise PoisonError(f"{path}: {reason}; give {ACCEPTED}")
        limits.check_bytes(path.stat().st_size, f"{path}")
        foreign = _read_file(path, limits, dataset)
        beside = path.with_name(f"{path.name}.meta.json")
        if beside.is_file() and beside.stat().st_size <= RECORD_BYTES:
            record = parse_record(beside.read_bytes(), f"{beside.parent}")
            return Foreign(foreign.form, foreign.arrays, record)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it asks for too much memory"
        raise PoisonError(f"{path} cannot be read: {reason}") from None
    return foreign


def _read_file(path: Path, limits: Limits, dataset: Dataset) -> Foreign:
    """Return the arrays of a file."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x93NUMPY"):
        return read_npy(path, limits)
    if start.startswith(b"PK") or path.suffix == ".zip":
        return _read_zip(path, limits, dataset)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return read_safetensors(path, limits)
    if start[:1] == b"\x80" or path.suffix in (".pkl", ".pickle", ".p"):
        if is_old_torch(path):
            return read_torch(path, limits, zipped=False)
        return read_pickle(path, limits)
    raise PoisonError(f"{path} is not a readable poison file; give {ACCEPTED}")


def _read_zip(path: Path, limits: Limits, dataset: Dataset) -> Foreign:
    """Return the arrays of a zip: of torch.save, of numpy.savez, or of images."""
    with Archive(path, limits) as archive:
        names = archive.names()
    if sum(TORCH_PICKLE.fullmatch(name) is not None for name in names) == 1:
        return read_torch(path, limits, zipped=True)
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(path, limits)
    return read_image_zip(path, limits, dataset.class_names)
