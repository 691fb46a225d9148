"""What README.md and docs/ tell to type is run: commands, Python blocks, configurations.

A file's blocks are run in their order, in one folder, each line with what the earlier ones left.
"""

import os
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from click.testing import CliRunner

from uebench.cells.config import make_config
from uebench.cli import main
from uebench.data.synthetic import make_synthetic
from uebench.learn.protocol import PROTOCOLS
from uebench.methods import registry

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# What the test makes smaller, so that it takes seconds: defaults, and flags of some commands.
SIZES = (60, 20, 10, 16, 0)
"""n_train, n_test, n_classes, size and seed of `synthetic` where nothing else is said."""
EPOCHS = 1
"""Of the protocol `quick`."""
FEWER = {
    "em": "--set em.rounds=1 --set em.train_steps=1 --set em.steps=1",
    "ar": "--set ar.draws=5000",
}
"""Flags that are added where a matrix has the attack."""
INSTEAD = [
    (r"^make run", "uebench run --out results/quick"),
    (r"--dataset (cifar10|imagenet_subset|npz:\S+)", "--dataset synthetic"),
    (r" --download| --data-dir \S+", ""),
    (r"--protocol (paper|sprint)", "--protocol quick"),
    (r"^uebench (run|table) (table\d+|\d+)(?!.*--dataset)", r"\g<0> --dataset synthetic"),
    (r"^uebench (run|table) (table\d+|\d+)(?!.*--protocol)", r"\g<0> --protocol quick"),
    (r"^uebench run(?!.*(table|fig|--attacks)).*", r"\g<0> --attacks none,lsp"),
    (r"^uebench run(?!.*(table|fig|--defenses)).*", r"\g<0> --defenses standard,iss"),
    (r"^uebench check \S+", r"\g<0> --quick"),
    (r"--seeds 0,1,2", "--seeds 0,1"),
    (r" >> ~/.bashrc", ""),
]
"""Data sets that are not here, protocols that take a GPU, and so on."""
LONG = r"--protocol paper|--protocol sprint|--dataset imagenet|--dataset npz:|^uebench run table2"
"""Runs of hours: names and options are tested by `--dry-run`."""
NOT_RUN = {
    r"^make test": "it runs this test",
    r"^\. \.venv/bin/activate": "the tests have an environment",
    r"^python -m pytest my_noise": "tests/test_cli_kit.py runs a new package's tests",
    r"^pip install 'uebench\[": "it installs from a network",
    r"--executor '?(ray|slurm)": "it takes a cluster; tests/execute has one",
}
"""Lines that are not run, and why."""


class Block(NamedTuple):
    """A fenced block: its language, its first line's number, its text."""

    language: str
    line: int
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """Yield a file's fenced blocks."""
    text = path.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], text[: found.start()].count("\n") + 2, found[2])


def commands(text: str) -> list[str]:
    """Return a block's commands: continued lines joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    plain = [re.sub(r"\s+# .*", "", line).strip() for line in lines]
    return [" ".join(line.split()) for line in plain if line]


def small(command: str) -> str:
    """Return a command as the test runs it."""
    long = re.search(LONG, command)
    for pattern, instead in INSTEAD:
        command = re.sub(pattern, instead, command)
    matrix = re.match(r"uebench (run|table \d|table table)", command)
    named = re.search(r"--attacks (\S+)", command)
    attacks = named[1] if named else "em"  # which all tables have
    for attack, flags in FEWER.items():
        if matrix and re.search(rf"(^|,){attack}\b", attacks):
            command += f" {flags}"
    return command + " --dry-run" * (long is not None and "--dry-run" not in command)


def run_command(command: str, folder: Path) -> None:
    """Run a command that a reader is told to type."""
    if any(re.search(pattern, command) for pattern in NOT_RUN):
        return
    if installed := re.match(r"pip install -e '?(\w+)", command):
        (module,) = (folder / installed[1]).glob("uebench_*.py")
        registry.load_file(module)  # as its entry point would
        return
    words = shlex.split(small(command))
    assert words[0] == "uebench", f"nothing says how to test {command!r}"
    result = CliRunner().invoke(main, words[1:])
    assert result.exit_code == 0, f"{shlex.join(words)}:\n{result.output}\n{result.exception!r}"
    assert result.stdout.strip(), f"{command} prints nothing"


@pytest.fixture
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, at small defaults, and forget what is registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(make_synthetic, "__defaults__", SIZES)
    quick = PROTOCOLS["quick"].model_copy(update={"epochs": EPOCHS})
    monkeypatch.setitem(PROTOCOLS, "quick", quick)
    registry.load()
    ours = {
        kind: {name: cls for name, cls in found.items() if cls.info.origin == "built-in"}
        for kind, found in registry._methods.items()
    }
    monkeypatch.setattr(registry, "_methods", ours)
    monkeypatch.setattr(registry, "_files", [])
    # what "somebody released": a perturbation for each training image
    torch.save(torch.full((SIZES[0], 3, SIZES[3], SIZES[3]), 4 / 255), "perturbation.pt")


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.relative_to(ROOT).parts))
def test_what_a_page_tells_to_type_works(path: Path, tmp_path: Path) -> None:
    for block in blocks(path):
        if block.language == "sh":
            for command in commands(block.text):
                run_command(command, tmp_path)
        elif block.language == "python":
            script = tmp_path / f"{path.stem}_line_{block.line}.py"
            script.write_text(block.text)
            runpy.run_path(str(script))
        elif block.language == "yaml":
            assert make_config(yaml.safe_load(block.text)).attacks
        else:
            where = f"{path.name}, line {block.line}"
            assert block.language in ("text", "console"), f"{where}: no language"


def test_what_is_left_out_is_there() -> None:
    told = [c for p in FILES for b in blocks(p) if b.language == "sh" for c in commands(b.text)]
    for pattern in [*NOT_RUN, *LONG.split("|"), *(each for each, _ in INSTEAD)]:
        assert any(re.search(pattern, line) for line in told), f"no page has {pattern}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.relative_to(ROOT).parts))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_method_pages_are_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make.py"))["pages"]()
    assert len(made) > 20
    for page, text in made.items():
        assert page.read_text() == text, f"{page.name} is stale; run python docs/make.py"
    there = {p for folder in ("attacks", "defenses") for p in (ROOT / "docs" / folder).iterdir()}
    assert there == set(made), os.linesep.join(str(p) for p in there ^ set(made))
