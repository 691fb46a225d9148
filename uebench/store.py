"""The store: content-addressed, safe to share between processes, and it trusts nothing it reads.

An entry is a folder `KIND/KEY/` with `meta.json` and, where it holds tensors, `data.safetensors`.
It is written beside its place and renamed, so it is there whole or not at all. Every read checks
the sha256; a spoiled entry is set aside under `spoiled/`, named on stderr, and made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from .memory import MAP_FROM, default_root, mapped_safetensors, total_memory

log = logging.getLogger(__name__)
LAYOUT = "v1"


class StoreError(OSError):
    """The store cannot be used: one sentence says why and what to do."""


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(recipe: Mapping[str, Any]) -> str:
    """Return the sha256 of a recipe, 64 hex digits."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()


def seed_of(*parts: Any) -> int:
    """Return a seed in 0..2^63-1 derived from parts; other parts, another seed."""
    digest = hashlib.sha256(canonical([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Store:
    """What was computed, by key.

    Kinds: `dataset`, `poison`, `imported` (names of foreign poisons), `prepared`, `kept`, `cell`.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.base = self.root / LAYOUT

    def path(self, kind: str, key: str) -> Path:
        """Return the folder of an entry, whether it is there or not."""
        return self.base / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Return whether an entry is there; its content is checked when it is read."""
        return (self.path(kind, key) / "meta.json").is_file()

    def read(
        self, kind: str, key: str, tensors: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return an entry's tensors and record, or None where it is missing or spoiled.

        With `tensors=False` only the record is read, and the tensors' file is not checked.
        """
        folder = self.path(kind, key)
        try:
            meta = json.loads((folder / "meta.json").read_text())
            record = meta["record"]
            if meta["sha256"] != key_of(record) or meta["key"] != key:
                raise ValueError("its record does not match its checksum")
            if not tensors or meta["data"] is None:
                return {}, record
            return _checked_tensors(folder / "data.safetensors", meta["data"]), record
        except FileNotFoundError:
            if not folder.is_dir():
                return None
            self._set_aside(kind, key, "a file of it is missing")
        except OSError as error:
            raise StoreError(
                f"cannot read the store {self.root}: {error.strerror or error}; "
                "set UEBENCH_HOME to a folder that can be read and written"
            ) from error
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            self._set_aside(kind, key, str(error) or type(error).__name__)
        return None

    def write(
        self, kind: str, key: str, record: Mapping[str, Any], tensors: Mapping[str, Tensor] = {}
    ) -> None:
        """Write an entry; where another process was first, its entry stays.

        Raises:
            StoreError: the folder cannot be written.
        """
        record = json.loads(json.dumps(record))  # as it will be read, so that its hash is the same
        folder = self.path(kind, key)
        draft = self.base / "drafts" / uuid.uuid4().hex
        try:
            draft.mkdir(parents=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            digest = None
            if tensors:
                path = draft / "data.safetensors"
                save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, path)
                with path.open("r+b") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    os.fsync(file.fileno())
            meta = {"key": key, "sha256": key_of(record), "data": digest, "record": record}
            _write(draft / "meta.json", json.dumps(meta, indent=1).encode())
            try:
                draft.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {self.root}: {error.strerror or error}; "
                "free space or set UEBENCH_HOME to a folder that can be written"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def get_or_make(
        self,
        kind: str,
        key: str,
        make: Callable[[], tuple[dict[str, Tensor], Mapping[str, Any]]],
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return an entry, made first where it is missing; one process makes, others wait."""
        found = self.read(kind, key)
        if found is not None:
            return found
        with self.lock(kind, key):
            found = self.read(kind, key)
            if found is not None:
                return found
            tensors, record = make()
            self.write(kind, key, record, tensors)
            return dict(tensors), dict(record)

    def lock(self, kind: str, key: str) -> FileLock:
        """Return a lock between processes; the kernel frees it when its holder dies."""
        folder = self.base / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {self.root}: {error.strerror or error}; "
                "set UEBENCH_HOME to a folder that can be written"
            ) from error
        return FileLock(folder / f"{kind}-{key}.lock")

    def _set_aside(self, kind: str, key: str, why: str) -> None:
        """Move a spoiled entry away so that it is made again, and say so."""
        place = self.base / "spoiled" / f"{kind}-{key[:16]}-{uuid.uuid4().hex[:8]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path(kind, key).rename(place)
        except FileNotFoundError:
            return  # another process was first
        log.warning("spoiled store entry %s %s: %s; moved to %s", kind, key[:16], why, place)


def _checked_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a file that has this sha256; a large one is mapped, not read.

    Raises:
        ValueError: it has another sha256.
    """
    wrong = ValueError("its tensors do not match their checksum")
    if path.stat().st_size < min(MAP_FROM, total_memory() / 4):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise wrong
        return load(data)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise wrong
    return mapped_safetensors(path)


def _write(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
