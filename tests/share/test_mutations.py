"""Each leaf of each file of a bundle is changed once: `validate` finds it, or it is listed here.

Whoever changes a file can write the manifest again, so SHA256SUMS is made again after each change
and the tests of the contents alone must find it.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import uebench
from uebench.share.bundle import publish
from uebench.share.manifest import MANIFEST, write_manifest
from uebench.share.validate import findings, validate

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"

UNDETECTABLE: dict[str, str] = {}
"""Changes that only computing again can find, as patterns of what was changed, with the reason."""


class Mutation(NamedTuple):
    """One change of one file."""

    file: str
    leaf: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.file}: {self.leaf}"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two attacks and two defenses."""
    root = tmp_path_factory.mktemp("mutations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root / "home"))
        uebench.run(
            "lsp,em[rounds=1]",
            "standard,iss",
            DATA,
            out=root / "results",
            device="cpu",
            arch="resnet9[width=2]",
            protocol_options={"epochs": 2, "batch_size": 16, "robust": True, "train_curve": True},
        )
        publish(root / "results", root / "bundle", "MIT")
    assert {finding.status for finding in validate(root / "bundle")} == {"passed"}
    return root / "bundle"


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


def changed(value: Any) -> Any:
    """Return another value of the same type that is not obviously wrong."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return round(value * 1.1 + 0.01, 6)
    if isinstance(value, str):
        last = {"0": "1", "f": "e"}.get(value[-1:], "0")
        return value[:-1] + last if re.fullmatch("[0-9a-f]{8,}", value) else f"{value}x"
    return 1  # of null


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each leaf and of each list in a JSON value."""
    if isinstance(value, dict | list):
        if isinstance(value, list) and value:
            yield path
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            yield from leaves(each, (*path, key))
    else:
        yield path


def json_mutations(name: str, text: str) -> Iterator[Mutation]:
    """Yield the JSON with each leaf changed, set to null and removed, and each list shortened."""
    content = json.loads(text)
    for path in leaves(content):
        is_list = isinstance(_at(content, path), list)
        for kind in ("shortened",) if is_list else ("changed", "null", "removed"):
            mutant = copy.deepcopy(content)
            if is_list:
                _at(mutant, path).pop()
            elif kind == "removed":
                del _at(mutant, path[:-1])[path[-1]]
            else:
                place = _at(mutant, path[:-1])
                place[path[-1]] = changed(place[path[-1]]) if kind == "changed" else None
            if mutant != content:
                parts = (str(part) for part in path)
                leaf = ".".join(part[:8] if len(part) == 64 else part for part in parts)
                yield Mutation(name, f"{leaf} {kind}", json.dumps(mutant).encode())


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def csv_mutations(name: str, text: str) -> Iterator[Mutation]:
    """Yield the CSV with each of its cells changed, and with each row removed."""
    header, *rows = csv.reader(io.StringIO(text))
    for number, row in enumerate(rows):
        yield Mutation(
            name, f"row {number} removed", _csv([header, *rows[:number], *rows[number + 1 :]])
        )
        for place, column in enumerate(header):
            mutant = [*row[:place], _other_text(row[place]), *row[place + 1 :]]
            rest = [*rows[:number], mutant, *rows[number + 1 :]]
            yield Mutation(name, f"row {number} {column} changed", _csv([header, *rest]))


def _csv(rows: list[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()


def _other_text(text: str) -> str:
    """Return the text of another value: another number, truth or word; 1 for an empty text."""
    if text in ("True", "False"):
        return str(text != "True")
    try:
        return str(changed(json.loads(text)))
    except ValueError:
        return changed(text) if text else "1"


def text_mutations(name: str, text: str) -> Iterator[Mutation]:
    """Yield the text with one digit of each line changed, or a letter added where there is none."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        digits = list(re.finditer(r"\d", line))
        for match in digits[:: max(1, len(digits) // 4)]:
            digit = str((int(match[0]) + 1) % 10)
            mutant = line[: match.start()] + digit + line[match.end() :]
            text = "".join([*lines[:number], mutant, *lines[number + 1 :]])
            yield Mutation(name, f"line {number} {line.strip()[:40]} digit", text.encode())
        if line.strip():
            text = "".join([*lines[:number], "x", *lines[number:]])
            yield Mutation(name, f"line {number} {line.strip()[:40]} letter", text.encode())


def mutations(bundle: Path) -> list[Mutation]:
    """Return all changes of all files of a bundle."""
    kinds = {".json": json_mutations, ".csv": csv_mutations}
    found: list[Mutation] = []
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = path.relative_to(bundle).as_posix()
        if path.suffix == ".png":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            found.append(Mutation(name, "a byte of the pixels", bytes(data)))
        else:
            found += kinds.get(path.suffix, text_mutations)(name, path.read_text())
    return found


def is_caught(bundle: Path) -> bool:
    """Return whether a test fails; the tests after it are not run."""
    return any(finding.status == "failed" for finding in findings(bundle))


def survivors(bundle: Path, chosen: list[Mutation]) -> list[str]:
    """Return the changes that no test finds, each made alone, with the manifest made again."""
    missed = []
    for mutation in chosen:
        path = bundle / mutation.file
        before = path.read_bytes()
        path.write_bytes(mutation.data)
        if mutation.file != MANIFEST:
            write_manifest(bundle)
        if not is_caught(bundle):
            missed.append(str(mutation))
        path.write_bytes(before)
    write_manifest(bundle)
    return missed


def unexpected(missed: list[str]) -> list[str]:
    return [m for m in missed if not any(re.search(pattern, m) for pattern in UNDETECTABLE)]


def test_a_sample_of_changed_leaves_is_found(bundle: Path) -> None:
    chosen = random.Random(0).sample(mutations(bundle), 60)
    assert not unexpected(survivors(bundle, chosen))


@pytest.mark.slow
def test_every_changed_leaf_is_found_or_listed(bundle: Path) -> None:
    chosen = mutations(bundle)
    missed = survivors(bundle, chosen)
    print(f"{len(chosen)} changes, {len(missed)} undetectable:", *missed, sep="\n")
    assert not unexpected(missed)
    used = [p for p in UNDETECTABLE if any(re.search(p, m) for m in missed)]
    assert used == list(UNDETECTABLE), "a pattern that nothing needs hides faults"
