"""SHA256SUMS: the hash of every file in a folder, as `sha256sum -c SHA256SUMS` reads it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in parts."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def files_in(folder: Path) -> list[str]:
    """Return the files in a folder and below, relative, in order, but for the manifest itself."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != NAME)


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder into it."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in files_in(folder)]
    (folder / NAME).write_text("".join(lines))


def check_manifest(folder: Path) -> list[str]:
    """Return what does not agree with a folder's manifest, a sentence each."""
    wrong, named = [], set()
    for number, line in enumerate((folder / NAME).read_text().splitlines(), 1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            wrong.append(f"{NAME}, line {number} is no hash and name")
            continue
        digest, name = parts.groups()
        named.add(name)
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            wrong.append(f"{NAME}, line {number} leads out of the folder: {name}")
        elif not path.is_file():
            wrong.append(f"{name} is missing")
        elif sha256_of(path) != digest:
            wrong.append(f"{name} is not what {NAME} says: it was changed after it was published")
    return wrong + [f"{name} is not in {NAME}" for name in files_in(folder) if name not in named]
