"""Find the reader that a foreign file needs: by its first bytes, not by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...common.errors import UserError
from .. import Dataset
from ..image_files import IMAGE_SUFFIXES
from ..poison import PoisonError
from .archives import open_archive
from .arrays import read_npy, read_npz, read_safetensors
from .contents import Foreign
from .limits import Limits
from .pickles import TORCH_PICKLE, is_old_torch, read_old_torch, read_pickle, read_torch
from .pictures import RECORD_BYTES, parse_record, read_folder, read_image_zip

ACCEPTED = "a folder or zip of <index>.png, .npy, .npz, .safetensors, .pt or a pickle of arrays"


def read_foreign(path: Path, dataset: Dataset) -> Foreign:
    """Return the arrays of whatever an author released.

    Raises:
        PoisonError: there is no such file, its kind is unknown, or it cannot be trusted.
    """
    limits = Limits.of(dataset)
    try:
        if path.is_dir():
            return read_folder(path, dataset)
        if not path.is_file():
            exists = path.exists() or path.is_symlink()
            reason = "is neither a file nor a folder" if exists else "no such file"
            raise PoisonError(f"{path}: {reason}; give {ACCEPTED}")
        limits.check_bytes(path.stat().st_size, f"{path}")
        foreign = _read_file(path, limits, dataset)
        record_path = path.with_name(f"{path.name}.meta.json")
        if record_path.is_file():
            if record_path.stat().st_size > RECORD_BYTES:
                raise PoisonError(
                    f"{record_path} has more than {RECORD_BYTES:,} bytes; shorten or remove it"
                )
            record = parse_record(record_path.read_bytes(), f"{record_path}")
            return replace(foreign, record=record)
    except UserError as error:
        if type(error) is UserError:  # raised by a check that data sets share with poisons
            raise PoisonError(f"{error}") from None
        raise
    except (OSError, EOFError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or f"{error}" or "it asks for too much memory"
        raise PoisonError(f"{path} cannot be read: {reason}") from None
    return foreign


def _read_file(path: Path, limits: Limits, dataset: Dataset) -> Foreign:
    """Return the arrays of a file."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x93NUMPY"):
        return read_npy(path, limits)
    if start.startswith(b"PK") or path.suffix == ".zip":
        with open_archive(path, limits) as archive:
            if sum(TORCH_PICKLE.fullmatch(name) is not None for name in archive.sizes) == 1:
                return read_torch(archive)
            endings = {PurePosixPath(name).suffix.lower() for name in archive.sizes}
            if ".npy" in endings and not endings & set(IMAGE_SUFFIXES):
                return read_npz(archive)
            return read_image_zip(archive, dataset)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return read_safetensors(path, limits)
    if start[:1] == b"\x80" or path.suffix in (".pkl", ".pickle", ".p"):
        return (read_old_torch if is_old_torch(path) else read_pickle)(path, limits)
    raise PoisonError(f"{path} is not a readable poison file; give {ACCEPTED}")
