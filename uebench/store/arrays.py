"""Place large arrays: in memory while there is room, otherwise in a memory-mapped file.

New arrays (noise, poisoned images) are placed in a file if they need more than a quarter of the
host's memory, and are kept off a GPU if they need more than a quarter of its memory. Files of the
store are mapped from 1 GiB on, so that all processes share one copy. Such arrays are processed in
chunks, each of which is copied to the device.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import mmap
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import numpy as np
import platformdirs
import torch
from torch import Tensor

from ..common.drafts import clear_drafts, draft_path
from ..common.errors import UserError

if TYPE_CHECKING:
    from hashlib import _Hash

T = TypeVar("T")
Array: TypeAlias = np.ndarray
"""A numpy array, which public functions take where they take a tensor."""
CHUNK = 2**22
"""Values in a chunk: 1,365 images at 32 px, 27 at 224 px. It bounds the memory that one step of a
loop over chunks needs."""
MAP_FROM = 2**30
"""Size in bytes from which a file of the store is mapped instead of read."""


class RoomError(UserError):
    """There is no room for a large array; the message says where and what to do."""


def default_root() -> Path:
    """Return `$UEBENCH_HOME`, or the platform's cache folder."""
    return Path(os.environ.get("UEBENCH_HOME") or platformdirs.user_cache_dir("uebench"))


def total_memory() -> int:
    """Return how many bytes of memory this process may use.

    That is `$UEBENCH_MEMORY` in MiB if it is set, otherwise the system's memory divided among the
    workers on this machine. Limits of a container, of a cluster's scheduler and of the process are
    respected.

    Raises:
        RoomError: `$UEBENCH_MEMORY` is not a positive number.
    """
    chosen = os.environ.get("UEBENCH_MEMORY")
    if chosen:
        try:
            asked = int(float(chosen) * 2**20)
        except (ValueError, OverflowError):
            asked = 0
        if asked <= 0:
            raise RoomError(f"UEBENCH_MEMORY must be a number of MiB, such as 8000, got {chosen}")
        return asked
    available = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()])
    return min([available // _sharers, *_own_limits()])


def share_memory(sharers: int) -> None:
    """Record how many processes compute on this machine at the same time."""
    global _sharers
    _sharers = max(1, sharers)


_sharers = 1


def _own_limits() -> list[int]:
    """Return the limits on this process's memory, such as `memory_gb` or `ulimit -v`."""
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return [limit for limit in limits if limit != resource.RLIM_INFINITY]


def _cgroup_limits() -> list[int]:
    """Return the memory limits of the control groups (v2) that this process is in."""
    limits = []
    with contextlib.suppress(OSError, ValueError):
        own = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].split(":", 2)[2]
        root = Path("/sys/fs/cgroup")
        for folder in (root / own.strip("/"), *(root / own.strip("/")).parents):
            with contextlib.suppress(
                OSError, ValueError
            ):  # the file says "max", or the root group has none
                limits.append(int((folder / "memory.max").read_text()))
            if folder == root:
                break
    return limits


def fits(n_bytes: int, device: torch.device) -> bool:
    """Return whether an array needs less than a quarter of the memory of a device."""
    if device.type == "cuda":
        return n_bytes < torch.cuda.get_device_properties(device).total_memory / 4
    return n_bytes < total_memory() / 4


def zeros(
    shape: tuple[int, ...] | torch.Size,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return zeros: on the device if they fit there, else in memory, else in a mapped file.

    The file is unlinked before this returns, so the disk space is released with the tensor.

    Raises:
        RoomError: the disk has no room for the file.
    """
    device = torch.device(device)
    size = math.prod(shape) * dtype.itemsize
    for place in dict.fromkeys((device, torch.device("cpu"))):
        if fits(size, place):
            return torch.zeros(shape, dtype=dtype, device=place)
    try:
        folder = Path(os.environ.get("TMPDIR") or default_root() / "scratch")
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / "uebench-scratch"
        clear_drafts(scratch)
        draft = draft_path(scratch)
        try:
            with draft.open("xb") as file:
                if hasattr(os, "posix_fallocate"):
                    # a full disk fails here, not at a later write
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            mapped = torch.from_file(str(draft), shared=True, size=math.prod(shape), dtype=dtype)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise RoomError(
            f"no room for {size / 2**30:.3g} GiB in {folder}: {error.strerror}; free space there, "
            "or set TMPDIR to a folder on a larger disk"
        ) from None
    return mapped.view(shape)


def chunks(values: Tensor) -> list[slice]:
    """Return slices that cover all rows of a tensor, each of about `CHUNK` values."""
    size = max(1, CHUNK // max(1, values[0].numel())) if len(values) else 1
    return [slice(start, start + size) for start in range(0, len(values), size)]


@overload
def as_tensor(values: Tensor | Array, device: torch.device | None = None) -> Tensor: ...


@overload
def as_tensor(values: T | Array, device: torch.device | None = None) -> T | Tensor: ...


def as_tensor(values: Any, device: torch.device | None = None) -> Any:
    """Return a numpy array as a tensor on `device`; anything else is returned as it is.

    Floats become float32, since numpy makes float64 of most and networks compute in float32.
    """
    if not isinstance(values, np.ndarray):
        return values
    tensor = torch.from_numpy(np.require(values, values.dtype.newbyteorder("="), ["C", "W"]))
    return tensor.to(device, torch.float32 if tensor.is_floating_point() else None)


def taken(values: Tensor | Array, index: Tensor | Array | slice, device: torch.device) -> Tensor:
    """Return rows of a tensor on `device`, whichever device the tensor is on."""
    values, index = as_tensor(values), as_tensor(index)
    if isinstance(index, Tensor):
        index = index.to(values.device)
    return values[index].to(device)


def gathered(values: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Return many rows of a tensor, on the device if they fit, else where `zeros` places them."""
    index = index.to(values.device)
    size = len(index) * values[0].numel() * values.itemsize if len(values) else 0
    if values.device == device and fits(size, device):
        return values[index]
    out = zeros((len(index), *values.shape[1:]), values.dtype, device)
    for part in chunks(out):
        out[part] = values[index[part]]
    return out


def copied(values: Tensor) -> Tensor:
    """Return a copy of a tensor, placed by `zeros`."""
    out = zeros(values.shape, values.dtype, values.device)
    for part in chunks(values):
        out[part] = values[part]
    return out


def is_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite."""
    return all(bool(values[part].isfinite().all()) for part in chunks(values))


def add_bytes(digest: _Hash, values: Tensor) -> None:
    """Add the bytes of a tensor to a hash."""
    for part in chunks(values):
        rows = values[part].cpu().contiguous().numpy()
        digest.update(rows.reshape(-1).view(np.uint8).data)


def mapped_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, mapped: they use memory only while accessed.

    Changes to them stay in this process. safetensors maps files too, but in a way that Linux
    refuses if the file is larger than the memory.

    Raises:
        ValueError: the header is not that of a .safetensors file.
        MemoryError: the file exceeds the limit on this process's memory, which includes mappings.
    """
    with path.open("rb") as file:
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            mapped = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            size = path.stat().st_size
            raise MemoryError(
                f"a stored array of {size / 2**30:.3g} GiB cannot be mapped"
            ) from None
    return tensors_of(mapped)


def tensors_of(data: bytearray | mmap.mmap) -> dict[str, Tensor]:
    """Return the tensors in the content of a .safetensors file as views of `data`.

    Unlike safetensors' own reader, this copies nothing and does not panic if memory runs out.

    Raises:
        ValueError: the header is not that of a .safetensors file.
    """
    length = int.from_bytes(data[:8], "little")
    if not 0 < length < 2**26:
        raise UserError("its tensors have no header")
    header = json.loads(bytes(data[8 : 8 + length]))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, start = _DTYPES[entry["dtype"]], 8 + length + entry["data_offsets"][0]
        count = math.prod(entry["shape"])
        flat = (
            torch.frombuffer(data, dtype=dtype, count=count, offset=start)
            if count
            else torch.empty(0, dtype=dtype)
        )
        tensors[name] = flat.view(entry["shape"])
    return tensors


_DTYPES = {
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "C64": torch.complex64,
    "BOOL": torch.bool,
}
