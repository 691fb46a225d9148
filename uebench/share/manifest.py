"""SHA256SUMS: the hash of every file in a folder, as `sha256sum -c SHA256SUMS` reads it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MANIFEST = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in blocks so that its size does not matter."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> list[str]:
    """Return the sorted relative paths of all files below a folder, without the manifest."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def write_manifest(folder: Path) -> None:
    """Write the manifest of all files in a folder into that folder."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in files_in(folder)]
    (folder / MANIFEST).write_text("".join(lines))


def check_manifest(folder: Path) -> list[str]:
    """Return one sentence for each file that does not agree with the folder's manifest."""
    problems, named = [], set()
    for number, line in enumerate((folder / MANIFEST).read_text().splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            problems.append(f"{MANIFEST}, line {number} is not a hash and a file name")
            continue
        digest, name = match.groups()
        named.add(name)
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            problems.append(f"{MANIFEST}, line {number} leads out of the folder: {name}")
        elif not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256_of(path) != digest:
            problems.append(
                f"{name} does not have the hash in {MANIFEST}: it was changed after publication"
            )
    return problems + [
        f"{name} is not in {MANIFEST}" for name in files_in(folder) if name not in named
    ]
