"""Each leaf of each file of a bundle is changed once: `validate` finds it, or it is listed here.

Whoever changes a file can write the manifest again, so SHA256SUMS is made again after each change
and the tests of the contents alone must find it.
"""

from __future__ import annotations

import contextlib
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

import pandas as pd
import pytest

import uebench
from uebench.report import read_results
from uebench.report.cells import COLUMNS
from uebench.share.bundle import publish
from uebench.share.check_cells import planned_or_none
from uebench.share.check_displays import texts
from uebench.share.manifest import MANIFEST, write_manifest
from uebench.share.validate import findings, validate

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
RESULTS = Path(__file__).parents[2] / "results"

UNDETECTABLE = {
    r"^run\.json: seconds ": "how long the whole run took",
    r"^run\.json: (git\.|versions\.uebench )": "which version and commit wrote the folder",
    r"^README\.md: line \d+ MIT ": "the licence in README.md",
}
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
            "standard,iss[times_epochs=2]",
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


@pytest.mark.slow
def test_a_sample_of_changed_leaves_is_found(bundle: Path) -> None:
    chosen = random.Random(0).sample(mutations(bundle), 25)
    assert not unexpected(survivors(bundle, chosen))


PARTS = 8
PAGE_STRIDE = 40
"""One change in 40 of index.html is tried, since a page is compared as a whole."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_changed_leaf_is_found_or_listed(part: int, bundle: Path) -> None:
    every = mutations(bundle)
    page = [m for m in every if m.file == "index.html"][::PAGE_STRIDE]
    chosen = [*(m for m in every if m.file != "index.html"), *page][part::PARTS]
    missed = survivors(bundle, chosen)
    print(f"{len(chosen)} changes, {len(missed)} undetectable:", *missed, sep="\n")
    assert not unexpected(missed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pattern", UNDETECTABLE)
def test_what_is_listed_as_undetectable_is_needed(pattern: str, bundle: Path) -> None:
    matching = [m for m in mutations(bundle) if re.search(pattern, str(m))]
    assert any(survivors(bundle, [m]) for m in matching), "a pattern hides faults that are found"


def remake(bundle: Path) -> None:
    """Make all tables, the page, README.md and the manifest again, as a forger can."""
    results = read_results(bundle)
    makers = texts(results, planned_or_none(results.run))
    for name, make in makers.items():
        if (bundle / name).exists():
            (bundle / name).write_text(make())
    write_manifest(bundle)


OTHER_VALUES = {
    "dataset": "cifar10",
    "protocol": "paper",
    "attack_options": "eps=2/255",
    "defense_options": "quality=50",
    "ratio": "0.5",
    "classes": "striped disc",
    "n_train": "50000",
    "n_test": "10000",
    "device": "NVIDIA H200",
    "robust_acc": "0.95",
    "dfr_acc": "0.95",
    "weight_noise_acc": "0.95",
    "train_acc": "0.975",
    "best_epoch": "1",
    "precision": "fp16",
    "status": "skipped",
}
"""Another value of a column of cells.csv; of the others, any other value of their type."""


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_changed_everywhere_is_found(column: str, bundle: Path) -> None:
    frame = pd.read_csv(bundle / "cells.csv", dtype=str, keep_default_na=False)
    old = frame[column].tolist()
    frame[column] = [OTHER_VALUES.get(column, _other_text(value)) for value in old]
    if column in ("best_epoch", "train_acc") and frame[column].tolist() == old:
        pytest.skip("the run has this value")
    if column.endswith("_acc_best") or column == "test_acc":
        frame[column] = "1.0"
    frame.to_csv(bundle / "cells.csv", index=False, lineterminator="\n")
    with contextlib.suppress(ValueError):  # a value that no cells.csv may hold
        remake(bundle)
    write_manifest(bundle)
    assert is_caught(bundle), f"{column}: {old} became {frame[column].tolist()}"


def test_an_accuracy_that_is_raised_in_cells_and_records_is_found(bundle: Path) -> None:
    frame = pd.read_csv(bundle / "cells.csv", dtype=str, keep_default_na=False)
    frame[["test_acc", "test_acc_best"]] = "0.95"
    frame.to_csv(bundle / "cells.csv", index=False, lineterminator="\n")
    content = json.loads((bundle / "records.json").read_text())
    for record in content["records"].values():
        record |= {"test_acc": 0.95, "test_acc_best": 0.95}
        record["curve"]["test_acc"][-1] = 0.95
    (bundle / "records.json").write_text(json.dumps(content))
    remake(bundle)
    assert "confusion matrix gives another accuracy" in " ".join(problems(bundle, "records"))


@pytest.mark.parametrize(
    ("poison", "part"),
    [
        ({"linf_max": 200, "l2_max": 12}, "its budget allows"),
        ({"linf_max": None, "l2_max": None}, "is not a measurement"),
        ({"linf_max": "8.0"}, "is not a measurement"),
        ({"budget": None}, "is not a measurement"),
        ({"budget": {"norm": "linf", "eps": 1}}, "its recipe gives another"),
        ({"sha256": "0" * 64}, "has no record"),
    ],
)
def test_forged_measurements_of_poisons_are_found(
    poison: dict[str, Any], part: str, bundle: Path
) -> None:
    content = json.loads((bundle / "run.json").read_text())
    for record in content["poisons"].values():
        record |= poison
    (bundle / "run.json").write_text(json.dumps(content))
    remake(bundle)
    assert part in " ".join(problems(bundle, "poisons"))


def test_cells_that_are_dropped_with_all_their_traces_are_found(bundle: Path) -> None:
    frame = pd.read_csv(bundle / "cells.csv", dtype=str, keep_default_na=False)
    dropped = set(frame["key"][:2])
    frame[2:].to_csv(bundle / "cells.csv", index=False, lineterminator="\n")
    for name, part in (("records.json", "records"), ("run.json", "recipes")):
        content = json.loads((bundle / name).read_text())
        content[part] = {k: v for k, v in content[part].items() if k not in dropped}
        for group in content.get("origins", []):
            group["cells"] = [key for key in group["cells"] if key not in dropped]
        (bundle / name).write_text(json.dumps(content))
    remake(bundle)
    assert len([p for p in problems(bundle, "cells") if "has no row for it" in p]) == 2


def test_a_small_set_that_is_called_cifar10_everywhere_is_found(bundle: Path) -> None:
    for name in ("cells.csv", "run.json"):
        text = (bundle / name).read_text().replace(DATA, "cifar10")
        (bundle / name).write_text(text)
    remake(bundle)
    assert "of cifar10" in " ".join(problems(bundle, "run"))


@pytest.mark.parametrize("name", ["leaderboard.md", "leaderboard.tex", "index.html", "README.md"])
def test_an_edited_table_or_page_is_found_without_a_manifest(name: str, bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    text = (bundle / name).read_text()
    for old, new in (("LSP", "LSQ"), (shown_accuracy(bundle), "98.7")):
        (bundle / name).write_text(text.replace(old, new))
        assert name in " ".join(problems(bundle, "displays")), f"{old} became {new}"
    run = json.loads((bundle / "run.json").read_text())  # another version words it otherwise
    run["git"] = {"commit": "0" * 40, "dirty": False}
    (bundle / "run.json").write_text(json.dumps(run))
    assert name in " ".join(problems(bundle, "displays"))


def shown_accuracy(bundle: Path) -> str:
    """Return the accuracy of the first cell as tables show it, in percent."""
    return f"{100 * pd.read_csv(bundle / 'cells.csv')['test_acc'][0]:.1f}"


def problems(bundle: Path, test: str) -> tuple[str, ...]:
    """Return what a test finds wrong."""
    (finding,) = [finding for finding in validate(bundle) if finding.test == test]
    return finding.problems


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("*/cells.csv")), ids=lambda p: p.parent.name)
def test_published_results_of_older_versions_are_valid(folder: Path) -> None:
    assert [f for f in validate(folder.parent) if f.status == "failed"] == []


def test_the_documentation_lists_what_cannot_be_found() -> None:
    page = " ".join((RESULTS.parent / "docs/promises.md").read_text().split())
    for reason in UNDETECTABLE.values():
        assert reason in page
