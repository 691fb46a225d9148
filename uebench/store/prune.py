"""List, check and prune the store: its entries, the spoiled ones, and those that may be removed.

This module only finds entries; `store.py` reads, writes and removes them. The store's root also
holds the notes of drivers (`execute/notes.py`), which stay behind if a driver is killed. Whatever
is removed is computed again when it is needed. Only imported poisons and purified sets
cannot be computed again, so they are protected.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from .owner import is_running
from .store import INTERNAL, LAYOUT, Store, StoreError

ENTRY_KINDS = (
    *(
        "dataset",
        "decoded",
        "poison",
        "imported",
        "purified",
        "prepared",
        "kept",
        "cell",
        "model",
        "detection",
    ),
    "checkpoint",
)
"""The kinds of entries that this version knows; others are listed, but never removed."""
DRAFT_AGE_S = 24 * 3600.0
"""Age at which an unfinished entry counts as the garbage of a killed process."""

NOTES = "notes"
"""Folder in the store's root through which drivers and workers on other machines communicate."""
JOBS_AGE_S = 30 * DRAFT_AGE_S
"""Age at which no job of a killed driver can still be in Slurm's queue."""

Reason = Literal["draft", "spoiled", "checkpoint", "lock", "notes", "asked"]


@dataclass(frozen=True)
class Entry:
    """An entry, or a file or folder next to the entries.

    Attributes:
        kind: its kind, or the name of its folder.
        key: its key, or its file name.
        path: its place in the file system.
        bytes: the sizes of its files, added up.
        modified: when it was last written, in seconds since 1970.
    """

    kind: str
    key: str
    path: Path
    bytes: int
    modified: float


@dataclass(frozen=True)
class Doomed:
    """An entry that may be removed, and why."""

    entry: Entry
    why: Reason


def opened_store() -> Store:
    """Return the user's store.

    Raises:
        StoreError: something that is not a directory is in its place.
    """
    store = Store()
    if store.root.exists() and not store.root.is_dir():
        raise StoreError(f"{store.root} is not a directory; set UEBENCH_HOME to one")
    return store


def kinds(store: Store) -> list[str]:
    """Return the kinds that the store holds: first those of this version, then all others."""
    present = {path.name for path in _children(store.base) if path.is_dir()} - set(INTERNAL)
    return [*(k for k in ENTRY_KINDS if k in present), *sorted(present - set(ENTRY_KINDS))]


def entries(store: Store, only: Iterable[str] | None = None) -> Iterator[Entry]:
    """Yield the entries of some kinds, or of all kinds by default, oldest first in each kind."""
    for kind in kinds(store) if only is None else only:
        yield from _listed(kind, store.base / kind)


def other_layouts(store: Store) -> dict[str, int]:
    """Return the bytes that other versions of the suite use in the same store, by layout."""
    sizes = {}
    for path in _children(store.root):
        if path.is_dir() and path.name != LAYOUT and re.fullmatch(r"v\d+", path.name):
            sizes[path.name] = _total_bytes(_status(path))
    return sizes


def usage(store: Store) -> dict[str, dict[str, int]]:
    """Return the number of entries and their bytes by kind, with internal folders and layouts."""
    table = {}
    for kind in [*kinds(store), *INTERNAL]:
        these = list(entries(store, [kind]))
        if these:
            table[kind] = {"entries": len(these), "bytes": sum(e.bytes for e in these)}
    if notes := _listed(NOTES, store.root / NOTES):
        table[NOTES] = {"entries": len(notes), "bytes": sum(e.bytes for e in notes)}
    for layout, size in other_layouts(store).items():
        table[f"layout {layout}"] = {"entries": 0, "bytes": size}
    return table


def faults(store: Store, only: Iterable[str] | None = None) -> Iterator[tuple[Entry, str | None]]:
    """Yield every entry with a text that says what is wrong with it, or None if it is intact."""
    for entry in entries(store, only):
        yield entry, store.fault(entry.kind, entry.key)


def entry_text(store: Store, entry: Entry) -> str:
    """Return a few words from an entry's record that say what it is."""
    content = (
        store.read(entry.kind, entry.key, tensors=False) if entry.kind in ENTRY_KINDS else None
    )
    if content is None:
        return ""
    record: dict[str, Any] = content[1]
    recipe = record.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    match entry.kind:
        case "cell" | "model":
            poison = recipe.get("poison")
            attack = poison.get("attack", "imported") if isinstance(poison, dict) else "?"
            if isinstance(poison, dict) and set(poison) == {"dataset"}:
                attack = "none"
            pair = f"{attack} x {recipe.get('defense')}, {recipe.get('arch')}"
            accuracy = record.get("test_acc")
            result = f", {accuracy:.1%}" if isinstance(accuracy, float) else ""
            return f"{pair}, seed {recipe.get('seed')}{result}"
        case "poison":
            return f"{record.get('spec', record.get('file', ''))}, seed {recipe.get('seed', '-')}"
        case "detection":
            return f"{record.get('detector', '')} on {record.get('suspect', '')}"
        case "dataset" | "decoded":
            return str(record.get("name", ""))
        case "imported":
            return f"{record.get('file', '')} for {record.get('dataset', '')}"
        case "purified":
            return f"{record.get('of', '')} by {record.get('by', '')}"
        case "kept" | "checkpoint":
            return str(record.get("what", ""))
    return str(record.get("spec", ""))


def garbage(store: Store) -> list[Doomed]:
    """Return what nobody needs: spoiled entries, and what killed processes left behind.

    Drafts and locks may belong to a running process, so those younger than a day stay. A
    checkpoint is stale once its result is in the store, or after 30 days.
    """
    now = _clock(store)
    doomed = garbage_drafts(store)
    doomed += [Doomed(e, "spoiled") for e in entries(store, ["spoiled"])]
    for entry in entries(store, ["locks"]):
        if now - entry.modified > DRAFT_AGE_S and not _held(entry.path):
            doomed.append(Doomed(entry, "lock"))
    return doomed + stale_checkpoints(store) + dead_notes(store)


def _held(lock: Path) -> bool:
    """Return whether a process holds a lock, which the age of the file does not reveal."""
    attempt = FileLock(lock)
    try:
        attempt.acquire(timeout=0)
    except (OSError, NotImplementedError):  # filelock's Timeout is an OSError
        return True
    attempt.release()
    return False


def stale_checkpoints(store: Store) -> list[Doomed]:
    """Return the checkpoints whose result is in the store, and those older than 30 days."""
    doomed, now = [], _clock(store)
    for entry in entries(store, ["checkpoint"]):
        checkpoint = store.read("checkpoint", entry.key, tensors=False)
        target = checkpoint[1].get("leads_to") if checkpoint else None
        done = isinstance(target, list) and len(target) == 2 and store.has(*map(str, target))
        if done or now - entry.modified > 30 * DRAFT_AGE_S:
            doomed.append(Doomed(entry, "checkpoint"))
    return doomed


def asked_for(
    store: Store, only: Iterable[str], older_than_s: float | None, imported: bool
) -> list[Doomed]:
    """Return the entries of these kinds that are older than `older_than_s` seconds.

    What was imported cannot be computed again, so it is left out unless `imported` is set.
    """
    now = _clock(store)
    doomed = []
    for entry in entries(store, only):
        if older_than_s is not None and now - entry.modified < older_than_s:
            continue
        if not imported and is_imported(store, entry):
            continue
        doomed.append(Doomed(entry, "asked"))
    return doomed


def is_imported(store: Store, entry: Entry) -> bool:
    """Return whether an entry is an imported poison or purified set, or holds its name."""
    if entry.kind in ("imported", "purified"):
        return True
    if entry.kind != "poison":
        return False
    poison = store.read("poison", entry.key, tensors=False)
    return poison is not None and "imported" in (poison[1].get("recipe") or {})


def discard(store: Store, doomed: Iterable[Doomed]) -> int:
    """Remove entries and return how many bytes that freed.

    Raises:
        StoreError: the store cannot be written.
    """
    return sum(d.entry.bytes for d in doomed if store.discard(d.entry.path))


def tidy(store: Store) -> int:
    """Remove what killed processes left behind, and return the number of items removed.

    That is old drafts, stale checkpoints and the notes of dead drivers. If a process is still
    writing a draft that old, it notices that the draft is gone and writes it again.
    """
    leftovers = (store.base / "drafts", store.base / "checkpoint", store.root / NOTES)
    if not any(_children(folder) for folder in leftovers):
        return 0
    doomed: list[Doomed] = []
    n_removed = 0
    # what only another user may read or remove stays, and the run goes on
    for find in (garbage_drafts, stale_checkpoints, dead_notes):
        with contextlib.suppress(StoreError):
            doomed += find(store)
    for each in doomed:
        with contextlib.suppress(StoreError):
            n_removed += store.discard(each.entry.path)
    return n_removed


def garbage_drafts(store: Store) -> list[Doomed]:
    """Return the drafts that are older than a day."""
    now = _clock(store)
    drafts = entries(store, ["drafts"])
    return [Doomed(e, "draft") for e in drafts if now - e.modified > DRAFT_AGE_S]


def dead_notes(store: Store) -> list[Doomed]:
    """Return the notes whose driver is no longer running.

    A running driver touches its notes regularly, so a driver on another machine counts as dead once
    they are a day old. Jobs in Slurm's queue outlive their driver and need its folder for a month.
    """
    now, doomed = _clock(store), []
    for entry in _listed(NOTES, store.root / NOTES):
        running, has_jobs = is_running(entry.path), (entry.path / "slurm").is_dir()
        known_dead = running is False and not has_jobs
        too_old = now - entry.modified > (JOBS_AGE_S if has_jobs else DRAFT_AGE_S)
        if not running and (known_dead or too_old):
            doomed.append(Doomed(entry, "notes"))
    return doomed


def _clock(store: Store) -> float:
    """Return the current time of the file server's clock, which stamps the files of the store."""
    probe = store.base / "drafts" / f"clock-{uuid.uuid4().hex}"
    try:
        if store.base.is_dir():  # listing must not create a store
            probe.parent.mkdir(exist_ok=True)
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # a read-only store can still be listed
        return time.time()
    return now


def _children(folder: Path) -> list[Path]:
    """Return the content of a folder, which may be missing, in order of name."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(
            f"cannot read {folder} of the store: {error.strerror or error}; ask its owner, or set "
            "UEBENCH_HOME to another folder"
        ) from error


def _listed(kind: str, folder: Path) -> list[Entry]:
    """Return the entries in a folder, oldest first."""
    listed = []
    for path in _children(folder):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            status = _status(path)
            newest = max(each.st_mtime for each in status)
            listed.append(Entry(kind, path.name, path, _total_bytes(status), newest))
    return sorted(listed, key=lambda entry: entry.modified)


def _status(path: Path) -> list[os.stat_result]:
    """Return the status of a file, or of a folder and everything below it."""
    own = path.lstat()
    below = _children(path) if stat.S_ISDIR(own.st_mode) else []
    return [own, *(each for child in below for each in _status(child))]


def _total_bytes(status: list[os.stat_result]) -> int:
    return sum(each.st_size for each in status if not stat.S_ISDIR(each.st_mode))
