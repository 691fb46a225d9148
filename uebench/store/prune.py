"""What lies in the store: its entries, those that are spoiled, and those that may go.

Nothing here decides what is done; `store.py` does. Next to the entries lie the notes of drivers
(`execute/notes.py`), which those leave that are killed. What is taken away is made again when it is
asked for, but for imported poisons, which are protected.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from .owner import lives
from .store import INTERNAL, LAYOUT, Store, StoreError

ENTRY_KINDS = ("dataset", "decoded", "poison", "imported", "prepared", "kept", "cell", "checkpoint")
"""Kinds of entries of this version; the others are listed and left alone."""
DRAFT_AGE_S = 24 * 3600.0
"""Age from which what a killed process was writing is taken for garbage."""

NOTES = "notes"
"""Folder in the store's root where drivers and workers on other machines tell each other."""
JOBS_AGE_S = 30 * DRAFT_AGE_S
"""Age from which no job of a killed driver is still in Slurm's queue."""

Reason = Literal["draft", "spoiled", "checkpoint", "lock", "notes", "asked"]


@dataclass(frozen=True)
class Entry:
    """An entry, or a file or folder next to the entries.

    Attributes:
        kind: its kind, or the folder it lies in.
        key: its key, or its name.
        path: where it lies.
        bytes: what it takes on the disk's account.
        modified: seconds since 1970.
    """

    kind: str
    key: str
    path: Path
    bytes: int
    modified: float


@dataclass(frozen=True)
class Doomed:
    """An entry that may go, and why."""

    entry: Entry
    why: Reason


def opened_store() -> Store:
    """Return the user's store.

    Raises:
        StoreError: its place is taken by something that is not a directory.
    """
    store = Store()
    if store.root.exists() and not store.root.is_dir():
        raise StoreError(f"{store.root} is not a directory; set UEBENCH_HOME to one")
    return store


def kinds(store: Store) -> list[str]:
    """Return the kinds that are there, ours first."""
    there = {path.name for path in _children(store.base) if path.is_dir()} - set(INTERNAL)
    return [*(k for k in ENTRY_KINDS if k in there), *sorted(there - set(ENTRY_KINDS))]


def entries(store: Store, wanted: Iterable[str] | None = None) -> Iterator[Entry]:
    """Yield the entries of the wanted kinds, by default of all, oldest first in each kind."""
    for kind in kinds(store) if wanted is None else wanted:
        found = [_entry(kind, path) for path in _children(store.base / kind)]
        yield from sorted((e for e in found if e is not None), key=lambda e: e.modified)


def other_layouts(store: Store) -> dict[str, int]:
    """Return what other versions of the suite keep next to this one's, in bytes."""
    found = {}
    for path in _children(store.root):
        if path.is_dir() and path.name != LAYOUT and re.fullmatch(r"v\d+", path.name):
            found[path.name] = _size(path)
    return found


def usage(store: Store) -> dict[str, dict[str, int]]:
    """Return entries and bytes of each kind, of what lies next to them, and of other versions."""
    found = {}
    for kind in [*kinds(store), *INTERNAL]:
        these = list(entries(store, [kind]))
        if these:
            found[kind] = {"entries": len(these), "bytes": sum(e.bytes for e in these)}
    if notes := _notes(store):
        found[NOTES] = {"entries": len(notes), "bytes": sum(e.bytes for e in notes)}
    for layout, size in other_layouts(store).items():
        found[f"layout {layout}"] = {"entries": 0, "bytes": size}
    return found


def faults(store: Store, wanted: Iterable[str] | None = None) -> Iterator[tuple[Entry, str | None]]:
    """Yield every entry with what is wrong with it, or None."""
    for entry in entries(store, wanted):
        yield entry, store.fault(entry.kind, entry.key)


def entry_text(store: Store, entry: Entry) -> str:
    """Return an entry in a few words, as its record says."""
    found = store.read(entry.kind, entry.key, tensors=False) if entry.kind in ENTRY_KINDS else None
    if found is None:
        return ""
    record: dict[str, Any] = found[1]
    recipe = record.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    match entry.kind:
        case "cell":
            poison = recipe.get("poison")
            attack = poison.get("attack", "imported") if isinstance(poison, dict) else "?"
            if isinstance(poison, dict) and set(poison) == {"dataset"}:
                attack = "none"
            pair = f"{attack} x {recipe.get('defense')}, {recipe.get('arch')}"
            accuracy = record.get("test_acc")
            told = f", {accuracy:.1%}" if isinstance(accuracy, float) else ""
            return f"{pair}, seed {recipe.get('seed')}{told}"
        case "poison":
            return f"{record.get('spec', record.get('file', ''))}, seed {recipe.get('seed', '-')}"
        case "dataset" | "decoded":
            return str(record.get("name", ""))
        case "imported":
            return f"{record.get('file', '')} for {record.get('dataset', '')}"
        case "kept" | "checkpoint":
            return str(record.get("what", ""))
    return str(record.get("spec", ""))


def garbage(store: Store) -> list[Doomed]:
    """Return what nobody will ask for, such as spoiled entries and what killed processes left.

    Drafts and locks may belong to a process that lives: those younger than a day stay. A
    checkpoint is stale once what it leads to is there, or after 30 days.
    """
    now = _clock(store)
    doomed = garbage_drafts(store)
    doomed += [Doomed(e, "spoiled") for e in entries(store, ["spoiled"])]
    for entry in entries(store, ["locks"]):
        if now - entry.modified > DRAFT_AGE_S and not _held(entry.path):
            doomed.append(Doomed(entry, "lock"))
    return doomed + stale_checkpoints(store) + dead_notes(store)


def _held(lock: Path) -> bool:
    """Return whether a process holds a lock; its file's age does not say."""
    found = FileLock(lock)
    try:
        found.acquire(timeout=0)
    except (OSError, NotImplementedError):  # filelock's Timeout is an OSError
        return True
    found.release()
    return False


def stale_checkpoints(store: Store) -> list[Doomed]:
    """Return the checkpoints of what is done, and those older than 30 days."""
    doomed, now = [], _clock(store)
    for entry in entries(store, ["checkpoint"]):
        found = store.read("checkpoint", entry.key, tensors=False)
        target = found[1].get("leads_to") if found else None
        done = isinstance(target, list) and len(target) == 2 and store.has(*map(str, target))
        if done or now - entry.modified > 30 * DRAFT_AGE_S:
            doomed.append(Doomed(entry, "checkpoint"))
    return doomed


def asked_for(
    store: Store, wanted: Iterable[str], older_than_s: float | None, imported: bool
) -> list[Doomed]:
    """Return entries of these kinds, older than `older_than_s` seconds.

    Imported poisons cannot be made again: they stay unless `imported` is given.
    """
    now = _clock(store)
    doomed = []
    for entry in entries(store, wanted):
        if older_than_s is not None and now - entry.modified < older_than_s:
            continue
        if not imported and is_imported(store, entry):
            continue
        doomed.append(Doomed(entry, "asked"))
    return doomed


def is_imported(store: Store, entry: Entry) -> bool:
    """Return whether an entry is a poison that somebody imported, or its name."""
    if entry.kind == "imported":
        return True
    if entry.kind != "poison":
        return False
    found = store.read("poison", entry.key, tensors=False)
    return found is not None and "imported" in (found[1].get("recipe") or {})


def discard(store: Store, doomed: Iterable[Doomed]) -> int:
    """Take entries away; return how many bytes that freed.

    Raises:
        StoreError: the store cannot be written.
    """
    return sum(d.entry.bytes for d in doomed if store.discard(d.entry.path))


def tidy(store: Store) -> int:
    """Take away what killed processes left; return the number.

    That is old drafts, checkpoints of what is done, and notes of drivers that are dead. A process
    that is still writing a draft so old writes it once more.
    """
    beside = (store.base / "drafts", store.base / "checkpoint", store.root / NOTES)
    if not any(_children(folder) for folder in beside):
        return 0
    left = [*garbage_drafts(store), *stale_checkpoints(store), *dead_notes(store)]
    n_gone = 0
    for each in left:
        with contextlib.suppress(StoreError):  # another user's: it stays, and the run goes on
            n_gone += store.discard(each.entry.path)
    return n_gone


def garbage_drafts(store: Store) -> list[Doomed]:
    """Return the drafts that are older than a day."""
    now = _clock(store)
    drafts = entries(store, ["drafts"])
    return [Doomed(e, "draft") for e in drafts if now - e.modified > DRAFT_AGE_S]


def dead_notes(store: Store) -> list[Doomed]:
    """Return the notes that no living driver owns.

    A driver of another machine is dead once its notes are older than a day: while it lives it
    touches them. Jobs in Slurm's queue outlive their driver and need its folder for a month.
    """
    now, doomed = _clock(store), []
    for entry in _notes(store):
        living, has_jobs = lives(entry.path), (entry.path / "slurm").is_dir()
        alone = living is False and not has_jobs
        too_old = now - entry.modified > (JOBS_AGE_S if has_jobs else DRAFT_AGE_S)
        if not living and (alone or too_old):
            doomed.append(Doomed(entry, "notes"))
    return doomed


def _notes(store: Store) -> list[Entry]:
    """Return the folders of notes, oldest first."""
    found = []
    for path in _children(store.root / NOTES):
        try:
            stats = [p.lstat() for p in (path, *path.rglob("*"))]
        except FileNotFoundError:
            continue
        size = sum(stat.st_size for stat in stats[1:])
        found.append(Entry(NOTES, path.name, path, size, max(s.st_mtime for s in stats)))
    return sorted(found, key=lambda e: e.modified)


def _clock(store: Store) -> float:
    """Return the time by the clock that stamps the store's files, maybe another machine's."""
    probe = store.base / "drafts" / f"clock-{uuid.uuid4().hex}"
    try:
        if store.base.is_dir():  # listing makes no store
            probe.parent.mkdir(exist_ok=True)
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # a folder that cannot be written is still listed
        return time.time()
    return now


def _children(folder: Path) -> list[Path]:
    """Return what lies in a folder that may be missing."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(
            f"cannot read {folder} of the store: {error.strerror or error}; ask its owner, or set "
            "UEBENCH_HOME to another folder"
        ) from error


def _entry(kind: str, path: Path) -> Entry | None:
    """Return what is known of a file or folder, or None where it has just gone."""
    try:
        stats = [p.lstat() for p in (path, *_children(path))]
    except FileNotFoundError:
        return None
    newest = max(stat.st_mtime for stat in stats)
    return Entry(kind, path.name, path, sum(s.st_size for s in stats[1:] or stats), newest)


def _size(folder: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
