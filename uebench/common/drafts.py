"""Write files and folders whole: under a hidden draft name first, then moved into place.

Whenever a process is killed, the old content or the new one is in place, never a mixture. A draft's
name identifies the process that writes it, so that a later one can remove it if its writer died.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import UserError
from .process import place, runs, start_time

FILE_ENDINGS = frozenset(
    (
        *(".bin", ".bmp", ".bz2", ".csv", ".gif", ".gz", ".h5", ".hdf5", ".htm", ".html", ".jpeg"),
        *(".jpg", ".json", ".md", ".npy", ".npz", ".parquet", ".pdf", ".pickle", ".pkl", ".png"),
        *(".pt", ".pth", ".safetensors", ".svg", ".tar", ".tex", ".tgz", ".tif", ".tiff", ".txt"),
        *(".webp", ".xz", ".yaml", ".yml", ".zip", ".7z"),
    )
)
"""Endings of names that nobody means a folder by."""
DEAD_AGE_S = 24 * 3600.0
"""Age at which a draft counts as dead if its process belongs to another machine or container."""


def draft_path(path: Path, kind: str = "part") -> Path:
    """Return a new hidden name next to a path, with the same suffix, that names this process.

    The kind is `part` for content that is being written, and `old` for a folder that makes room.
    """
    pid = os.getpid()
    owner = f"{_place_hash()}-{pid}-{start_time(pid) or 0}"
    return path.with_name(f".{path.name}.{owner}.{uuid.uuid4().hex[:8]}.{kind}{path.suffix}")


def clear_drafts(path: Path) -> None:
    """Remove what dead processes left next to a path while they wrote it.

    A process that died between the two renames of `swap_folders` left nothing at the path itself.
    Then the old folder is put back; if something else is there by now, both folders stay.
    """
    dead = _dead_drafts(path)
    unplaced = {owner for _, owner, kind in dead if kind == "part"}
    with contextlib.suppress(OSError):  # another process may clear them at the same time
        for draft, owner, kind in dead:
            if kind == "old" and owner in unplaced:
                if path.is_dir() and any(path.iterdir()):
                    return
                draft.rename(path)
        for draft, _, _ in dead:
            remove_draft(draft)


def refuse_file_name(folder: Path) -> None:
    """Refuse the name of a file where a folder is written, unless there is a folder of this name.

    Raises:
        UserError: it is one.
    """
    if folder.suffix.lower() in FILE_ENDINGS and not folder.is_dir():
        raise UserError(
            f"{folder} is the name of a file, and a folder is written; give the name of a folder, "
            f"such as {folder.with_suffix('')}"
        )


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield the path of a draft to write, which becomes `path` when the block ends normally."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(path)
    draft = draft_path(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        remove_draft(draft)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty draft folder, which becomes `folder` when the block ends normally.

    Raises:
        OSError: there is a folder with content at its place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(folder)
    draft = draft_path(folder)
    try:
        draft.mkdir()
        yield draft
        draft.rename(folder)
    finally:
        remove_draft(draft)


@contextlib.contextmanager
def replaced_folder(folder: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """Yield an empty draft folder that replaces `folder` when the block ends normally.

    Files of which `is_ours`, given their path in the folder, is false belong to the user. They are
    linked into the new folder, which takes no space and leaves them the same files. Where folders
    cannot change places (a mount point, a parent that cannot be written, the current directory,
    which a shell would keep open), our files are moved one by one.
    """
    folder = folder.resolve()  # a link to a folder stays, and the folder that it leads to changes
    folder.mkdir(parents=True, exist_ok=True)
    inside = folder / folder.name
    for path in (folder, inside):
        clear_drafts(path)
    can_move = _can_move(folder)
    draft = draft_path(folder if can_move else inside)
    try:
        draft.mkdir()
        yield draft
        if not (
            can_move and _keep_the_users(folder, draft, is_ours) and swap_folders(draft, folder)
        ):
            _move_files(draft, folder, is_ours)
    finally:
        remove_draft(draft)


def exchange(first: Path, second: Path) -> None:
    """Let two folders change places in one step, which nobody sees half done.

    Raises:
        OSError: the system or the file system cannot do that.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        raise OSError(errno.ENOSYS, "renameat2 is missing") from None
    current_folder, exchanging = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    paths = os.fsencode(first), os.fsencode(second)
    if rename(current_folder, paths[0], current_folder, paths[1], exchanging):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(second))


def swap_folders(draft: Path, folder: Path) -> bool:
    """Put a draft in the place of a folder and remove the old one; return whether that worked."""
    try:
        exchange(draft, folder)
        remove_draft(draft)
        return True
    except OSError:  # macOS, network folders: nearly as good, and `clear_drafts` repairs a kill
        old = draft_path(folder, "old")
    try:
        folder.rename(old)
    except OSError:
        return False
    try:
        draft.rename(folder)
    except OSError:
        old.rename(folder)
        return False
    remove_draft(old)
    return True


def _can_move(folder: Path) -> bool:
    """Return whether a folder may change places with another one next to it."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed
        here = Path("/")
    parent_is_open = os.access(folder.parent, os.W_OK | os.X_OK)
    return parent_is_open and not folder.is_mount() and folder not in (here, *here.parents)


def _keep_the_users(folder: Path, draft: Path, is_ours: Callable[[str], bool]) -> bool:
    """Link the user's files into a draft; return whether that worked for all of them."""

    def ours(parent: str, names: list[str]) -> list[str]:
        within = Path(parent).relative_to(folder)
        return [name for name in names if is_ours((within / name).as_posix())]

    try:
        shutil.copytree(
            folder, draft, symlinks=True, ignore=ours, copy_function=_link, dirs_exist_ok=True
        )
    except OSError:
        return False
    return True


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _move_files(draft: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Move our files from a draft into a folder, and remove those of earlier runs."""
    ours = _ours(draft, is_ours)
    for name in ours:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(folder / name)
    for name in set(_ours(folder, is_ours)) - set(ours):
        (folder / name).unlink()


def _ours(folder: Path, is_ours: Callable[[str], bool]) -> list[str]:
    """Return the paths of our files within a folder."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if is_ours(name))


def _dead_drafts(path: Path) -> list[tuple[Path, str, str]]:
    """Return the drafts of a path whose processes have died, with their owners and kinds."""
    pattern = re.compile(
        rf"\.{re.escape(path.name)}\.(([0-9a-f]{{8}})-(\d+)-(\d+))\.[0-9a-f]{{8}}\.(part|old)"
        rf"{re.escape(path.suffix)}"
    )
    dead = []
    with contextlib.suppress(OSError):
        for draft in path.parent.iterdir():
            if not (match := pattern.fullmatch(draft.name)):
                continue
            owner, home, pid, began, kind = match.groups()
            if home == _place_hash():
                is_dead = not runs(int(pid), int(began) or None)
            else:
                is_dead = time.time() - draft.lstat().st_mtime > DEAD_AGE_S
            if is_dead:
                dead.append((draft, owner, kind))
    return dead


def _place_hash() -> str:
    """Return a short name of the host, its current boot and the container."""
    return hashlib.sha256(repr(place()).encode()).hexdigest()[:8]


def remove_draft(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
