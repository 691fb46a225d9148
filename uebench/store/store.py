"""The store: content-addressed, shared between processes, and verified at every read.

An entry is a folder `KIND/KEY/` with `meta.json` and, if it holds tensors, `data.safetensors`. It
is written to a temporary folder that is then renamed, so an entry is either complete or absent.
Every read checks the sha256. A spoiled entry is moved to `spoiled/`, reported on stderr, and
computed again.

Several versions of the suite can share a store: keys contain the versions of all recipes, a later
layout gets its own folder next to `v1/`, and kinds that this version does not know are left
alone. `prune.py` lists, checks and prunes the entries.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..common.drafts import remove_draft, swap_folders
from .arrays import MAP_FROM, default_root, mapped_safetensors, tensors_of, total_memory

log = logging.getLogger(__name__)
SESSION = f"session-{uuid.uuid4().hex}"
"""A mark of this process. What a recipe that contains it describes is not kept: it is written to a
folder of this process among the drafts, and removed when the process ends."""

_session_keys: set[str] = set()
LAYOUT = "v1"
INTERNAL = ("drafts", "spoiled", "locks")
"""Folders next to the kinds: entries being written, entries set aside, locks."""


class StoreError(OSError):
    """The store cannot be used; the message says why and what to do."""


class FullError(StoreError):
    """The store cannot be written: the disk is full or read-only, or a quota is exhausted."""


def canonical(value: Any) -> str:
    """Return the canonical JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(recipe: Mapping[str, Any]) -> str:
    """Return the sha256 of a recipe, 64 hex digits."""
    text = canonical(recipe)
    key = hashlib.sha256(text.encode()).hexdigest()
    if SESSION in text:
        _session_keys.add(key)
    return key


def seed_of(*parts: Any) -> int:
    """Return a seed in 0..2^63-1 that is derived from `parts` and differs for different parts."""
    digest = hashlib.sha256(canonical([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class BusyError(RuntimeError):
    """Another process holds a lock, and the caller asked not to wait for it."""


class SpoiledError(ValueError):
    """The content of an entry is not what was written."""


class Store:
    """Everything that was computed, by kind and key.

    The kinds are `dataset`, `decoded` (which data set a folder of images became), `poison`,
    `imported` (the names of imported poisons), `prepared` (preprocessed training sets), `kept`
    (tensors that methods share, such as surrogates), `cell`, `model` (weights of target models),
    `detection` (scores of detectors) and `checkpoint` (unfinished work).
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.base = self.root / LAYOUT

    def path(self, kind: str, key: str) -> Path:
        """Return the folder of an entry, whether or not it exists."""
        base = _session_folder(self.base) if key in _session_keys else self.base
        return base / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Return whether an entry exists; its content is only checked when it is read."""
        return (self.path(kind, key) / "meta.json").is_file()

    def read(
        self, kind: str, key: str, tensors: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return an entry's tensors and record, or None if it is missing or spoiled.

        With `tensors=False` only the record is read, and the file of tensors is not checked.

        Raises:
            StoreError: the entry exists, but this user may not read it.
            MemoryError: there is not enough memory for it; the entry is left in place.
        """
        inode = _inode(self.path(kind, key))
        try:
            return self._checked(kind, key, tensors)
        except SpoiledError as error:
            if inode is not None:
                self._set_aside(kind, key, str(error), inode)
        return None

    def fault(self, kind: str, key: str) -> str | None:
        """Return what is wrong with an entry, or None; a spoiled entry is left in place."""
        try:
            self._checked(kind, key, tensors=True)
        except SpoiledError as error:
            return str(error)
        return None

    def _checked(
        self, kind: str, key: str, tensors: bool
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return an entry whose checksums match, or None if there is no such entry.

        Raises:
            SpoiledError: the entry is incomplete or was changed.
        """
        folder = self.path(kind, key)
        try:
            meta = json.loads((folder / "meta.json").read_text())
            record = meta["record"]
            if meta["sha256"] != key_of(record) or meta["key"] != key:
                raise SpoiledError("its record does not match its checksum")
            if not tensors or meta["data"] is None:
                return {}, record
            return _checked_tensors(folder / "data.safetensors", meta["data"]), record
        except FileNotFoundError:
            if not folder.is_dir():
                return None
            raise SpoiledError("a file of it is missing") from None
        except (NotADirectoryError, IsADirectoryError):
            if _inode(folder) is None:  # the folder of the store is itself a file
                return None
            raise SpoiledError("a file and a folder have changed places") from None
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError(f"no memory to read {kind} {key[:16]} of the store") from error
            raise StoreError(
                f"cannot read the store {self.root}: {error.strerror or error}; "
                "set UEBENCH_HOME to a folder that can be read and written"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise SpoiledError(str(error) or type(error).__name__) from None

    def write(
        self,
        kind: str,
        key: str,
        record: Mapping[str, Any],
        tensors: Mapping[str, Tensor] = {},
        replace: bool = False,
    ) -> None:
        """Write an entry; if there is one already, that one stays unless `replace` is set.

        Raises:
            StoreError: the folder cannot be written.
        """
        record = json.loads(json.dumps(record))  # hash the record as it will be read back
        with self._writing():
            try:
                self._write(kind, key, record, tensors, replace)
            except (
                FileNotFoundError
            ):  # another process took the draft for an old one: the clock jumped
                self._write(kind, key, record, tensors, replace)

    def _write(
        self,
        kind: str,
        key: str,
        record: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        replace: bool,
    ) -> None:
        """Write an entry as a draft and rename that, so that no reader sees half of it."""
        folder = self.path(kind, key)
        with self._draft() as draft:
            draft.mkdir()
            folder.parent.mkdir(parents=True, exist_ok=True)
            digest = None
            if tensors:
                path = draft / "data.safetensors"
                save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, path)
                with path.open("r+b") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    os.fsync(file.fileno())
            meta = {"key": key, "sha256": key_of(record), "data": digest, "record": record}
            _write_file(draft / "meta.json", json.dumps(meta, indent=1).encode())
            try:
                draft.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if replace and not swap_folders(draft, folder):
                    raise

    def remove(self, kind: str, key: str) -> bool:
        """Remove an entry and return whether it existed."""
        return self.discard(self.path(kind, key))

    def discard(self, path: Path) -> bool:
        """Remove a folder or file of the store and return whether it existed.

        It is renamed first, so that no reader sees half of it.
        """
        with self._writing(), self._draft() as draft:
            try:
                path.rename(draft)
            except FileNotFoundError:
                return False
        return True

    def check_writable(self) -> None:
        """Check that an entry can be written, before a long computation begins.

        Raises:
            StoreError: it cannot be written; the message says why.
        """
        with self._writing(), self._draft() as draft:
            draft.mkdir()
            _write_file(draft / "meta.json", bytes(2**16))

    @contextlib.contextmanager
    def _draft(self) -> Iterator[Path]:
        """Yield a new path for an entry that is being written; remove what is left there."""
        draft = self.base / "drafts" / uuid.uuid4().hex
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
        finally:
            remove_draft(draft)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn any failure to write the store into one sentence."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            # safetensors reports the system's error number only in its text
            match = re.search(r"\(os error (\d+)\)", str(error))
            number = int(match[1]) if match else getattr(error, "errno", None)
            if number == errno.ENOMEM:
                raise MemoryError("no memory to write to the store") from error
            why = os.strerror(number) if number else error
            raise (FullError if number in NO_ROOM else StoreError)(
                f"cannot write to the store {self.root}: {why}; "
                "free space or set UEBENCH_HOME to a folder that can be written"
            ) from error

    def get_or_make(
        self,
        kind: str,
        key: str,
        make: Callable[[], tuple[dict[str, Tensor], Mapping[str, Any]]],
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return an entry; if it is missing, one process computes it by `make` and others wait."""
        entry = self.read(kind, key)
        if entry is not None:
            return entry
        with self.lock(kind, key):
            entry = self.read(kind, key)
            if entry is not None:
                return entry
            tensors, record = make()
            self.write(kind, key, record, tensors)
            return dict(tensors), dict(record)

    def lock(self, kind: str, key: str, wait: bool = True) -> AbstractContextManager[None]:
        """Return a lock between processes, which the kernel releases when its holder dies.

        Without `wait`, entering it raises BusyError if another process holds it.

        On a network folder without file locks it has no effect: two processes may then compute the
        same entry, and the one that is written first stays.
        """
        folder = self.base / "locks"
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        return self._locked(folder / f"{kind}-{key}.lock", wait)

    @contextlib.contextmanager
    def _locked(self, path: Path, wait: bool) -> Iterator[None]:
        """Hold a lock, or nothing if the file system has no locks."""
        lock = FileLock(path)
        try:
            with self._writing():
                try:
                    lock.acquire(timeout=-1 if wait else 0)
                except Timeout:
                    raise BusyError(f"{path.name} is held by another process") from None
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in NO_LOCKS:
                raise
            log.warning("%s has no file locks: work may be done twice, but not lost", self.root)
        try:
            yield
        finally:
            lock.release()

    def _set_aside(self, kind: str, key: str, why: str, inode: int) -> None:
        """Move a spoiled entry away, so that it is computed again, and log a warning."""
        source = self.path(kind, key)
        place = self.base / "spoiled" / f"{kind}-{key[:16]}-{uuid.uuid4().hex[:8]}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if _inode(source) != inode:
                return  # another process moved it first, and may have computed it again
            source.rename(place)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning(
                "spoiled store entry %s %s: %s; it is not used, and stays where it is (%s)",
                *(kind, key[:16], why, error.strerror or error),
            )
            return
        log.warning("spoiled store entry %s %s: %s; moved to %s", kind, key[:16], why, place)


@cache
def _session_folder(base: Path) -> Path:
    """Return the folder of what this process alone may use; it is removed when the process ends."""
    folder = base / "drafts" / SESSION
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _checked_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a file with this sha256; a large file is memory-mapped.

    Raises:
        SpoiledError: it has another sha256.
    """
    mismatch = SpoiledError("its tensors do not match their checksum")
    if path.stat().st_size < min(MAP_FROM, total_memory() / 4):
        data = bytearray(path.stat().st_size)
        with path.open("rb") as file:
            file.readinto(data)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise mismatch
        return tensors_of(data)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise mismatch
    return mapped_safetensors(path)


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks, such as NFS without its lock daemon."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a file system that is full, over its quota, or read-only."""


def _inode(path: Path) -> int | None:
    """Return a number that a later folder of the same name does not have; None if there is none."""
    try:
        return path.lstat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return 0


def _write_file(path: Path, data: bytes) -> None:
    """Write a file and wait until its content has reached the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
