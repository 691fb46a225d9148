"""Files and folders are replaced whole: a kill at any operation leaves the old or the new one."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.killing import killed_at_each_operation
from uebench.common import drafts
from uebench.common.drafts import (
    clear_drafts,
    draft_path,
    new_folder,
    refuse_file_name,
    replaced_file,
    replaced_folder,
)
from uebench.common.errors import UserError
from uebench.common.text import write_text

OURS = ("cells.csv", "board.csv", "stale.csv", "pictures/new.png", "pictures/old.png")
OLD = {"cells.csv": "old", "board.csv": "old", "stale.csv": "old", "pictures/old.png": "old"}
NEW = {"cells.csv": "new", "board.csv": "new", "pictures/new.png": "new"}
USERS = {
    "README.md": "mine",
    "pictures/mine.jpg": "mine",
    ".git/objects/ab/cd": "mine",
    "cells.csv.bak": "mine",
}


def write_tree(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    """Return the files under a folder with their texts."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def hidden(folder: Path) -> list[str]:
    """Return the names of what lies next to a folder or in it, and only we would have written."""
    return [p.name for p in (*folder.parent.iterdir(), *folder.rglob("*")) if ".part" in p.name]


def replace(folder: Path) -> None:
    with replaced_folder(folder, OURS.__contains__) as draft:
        write_tree(draft, NEW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "home" / "results"
    write_tree(made, OLD | USERS)
    (made / "link").symlink_to("cells.csv")
    return made


def two_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system have no way to exchange two folders in one step."""

    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, "not on this file system")

    monkeypatch.setattr(drafts, "exchange", refuse)


def as_mount_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: True)


def as_read_only_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object, **options: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)


def without_both(monkeypatch: pytest.MonkeyPatch) -> None:
    two_renames(monkeypatch)
    without_links(monkeypatch)


@pytest.mark.parametrize(
    "hindrance",
    [None, two_renames, as_mount_point, as_read_only_parent, without_links, without_both],
)
def test_a_folder_is_replaced_and_keeps_what_is_the_users(
    hindrance: Callable[[pytest.MonkeyPatch], None] | None,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hindrance is not None:
        hindrance(monkeypatch)
    node = (folder / "README.md").stat().st_ino
    replace(folder)
    assert tree(folder) == NEW | USERS | {"link": "new"}
    assert (folder / "link").is_symlink()
    assert hidden(folder) == []
    if hindrance not in (without_links, without_both):
        assert (folder / "README.md").stat().st_ino == node, "not a copy"


def test_the_current_directory_stays_the_same_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    node = folder.stat().st_ino
    replace(Path())
    assert tree(Path()) == NEW | USERS | {"link": "new"}
    assert folder.stat().st_ino == node, "a shell that is in it still sees it"
    assert hidden(folder) == []


def test_a_link_to_a_folder_stays_a_link(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    replace(link)
    assert link.is_symlink()
    assert tree(folder) == NEW | USERS | {"link": "new"}


def test_a_folder_that_fails_leaves_the_old_one(folder: Path) -> None:
    def fail() -> None:
        with replaced_folder(folder, bool) as draft:
            (draft / "cells.csv").write_text("half")
            raise ValueError("broken")

    before = tree(folder)
    with pytest.raises(ValueError, match="broken"):
        fail()
    assert tree(folder) == before
    assert hidden(folder) == []


@pytest.mark.parametrize("hindrance", [None, pytest.param(two_renames, marks=pytest.mark.slow)])
def test_a_kill_at_each_operation_leaves_one_whole_folder(
    hindrance: Callable[[pytest.MonkeyPatch], None] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hindrance is not None:
        hindrance(monkeypatch)
    seen = []
    for n, kill in killed_at_each_operation():
        folder = tmp_path / str(n) / "results"
        write_tree(folder, OLD | USERS)
        ended = kill(lambda folder=folder: replace(folder))
        if hindrance is None:
            assert tree(folder) in (OLD | USERS, NEW | USERS), f"killed at operation {n}"
            seen.append(tree(folder) == NEW | USERS)
        clear_drafts(folder)
        assert tree(folder) in (OLD | USERS, NEW | USERS), f"cleared after operation {n}"
        assert hidden(folder) == [], f"killed at operation {n}"
        if ended:
            break
    assert seen == sorted(seen), "first the old folder, then the new one"
    if hindrance is None:
        assert {False, True} == set(seen[:-1]), "the swap is one of the operations"


def write_one(folder: Path) -> None:
    with replaced_file(folder / "a.png") as draft:
        draft.write_text("new")


def write_folder(folder: Path) -> None:
    with new_folder(folder / "made") as draft:
        write_tree(draft, NEW)


@pytest.mark.parametrize(
    ("write", "name", "new"),
    [
        (write_one, "a.png", {"a.png": "new"}),
        (write_folder, "made", {f"made/{name}": text for name, text in NEW.items()}),
        (lambda folder: write_text(folder / "b.csv", "new"), "b.csv", {"b.csv": "new"}),
    ],
)
def test_a_file_or_a_new_folder_appears_whole(
    write: Callable[[Path], None], name: str, new: dict[str, str], tmp_path: Path
) -> None:
    for n, kill in killed_at_each_operation():
        folder = tmp_path / str(n)
        folder.mkdir()
        ended = kill(lambda folder=folder: write(folder))
        visible = {k: v for k, v in tree(folder).items() if not k.startswith(".")}
        assert visible in ({}, new), f"killed at operation {n}"
        clear_drafts(folder / name)
        assert tree(folder) in ({}, new), f"killed at operation {n}"
        if ended:
            assert tree(folder) == new
            break


def test_an_old_folder_is_not_removed_while_something_else_is_in_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys; from pathlib import Path; from uebench.common.drafts import draft_path\n"
        "folder = Path(sys.argv[1]); draft_path(folder).mkdir()\n"
        "folder.rename(draft_path(folder, 'old'))"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    write_tree(folder, {"other.txt": "other"})
    clear_drafts(folder)
    assert any(tree(path) == OLD | USERS | {"link": "old"} for path in folder.parent.iterdir())
    (folder / "other.txt").unlink()
    clear_drafts(folder)
    assert tree(folder) == OLD | USERS | {"link": "old"}
    assert hidden(folder) == []


def drafts_of_others(path: Path) -> Iterator[Path]:
    """Yield drafts of a running process, of another machine, and of no process."""
    yield draft_path(path)
    own = draft_path(path).name.split(".")
    owner = own[-4].split("-")
    for changed in (["0" * 8, *owner[1:]],):
        yield path.with_name(".".join([*own[:-4], "-".join(changed), *own[-3:]]))
    yield path.with_name(f".{path.name}.mine.part{path.suffix}")


def test_drafts_of_running_processes_and_of_other_machines_stay_for_a_day(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    running, elsewhere, mine = drafts_of_others(path)
    for draft in (running, elsewhere, mine):
        draft.write_text("")
    clear_drafts(path)
    assert {running, elsewhere, mine} == set(tmp_path.iterdir())
    for draft in (running, elsewhere, mine):
        os.utime(draft, (time.time() - drafts.DEAD_AGE_S - 60,) * 2)
    clear_drafts(path)
    assert {running, mine} == set(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fig.pdf", "results.csv", "set.ZIP"])
def test_a_folder_does_not_get_the_name_of_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is the name of a file, and a folder is written"):
        refuse_file_name(tmp_path / name)
    (tmp_path / name).mkdir()
    refuse_file_name(tmp_path / name)  # the user has decided otherwise
    refuse_file_name(tmp_path / "v1.5")
    refuse_file_name(tmp_path / "cifar10.new")
