"""The commands, Python blocks and configurations in README.md and docs/ work when they are typed.

The blocks of a file run in order and in one folder, so that each can use what earlier ones wrote.
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

# Smaller defaults and extra flags, so that the test takes seconds.
SIZES = (60, 20, 10, 16, 0)
"""Default n_train, n_test, n_classes, size and seed of `synthetic`."""
QUICK = {"epochs": 1, "arch": "resnet8[width=8]", "surrogate": "resnet8[width=8]"}
"""What differs in the protocol `quick`."""
FEWER = {
    "em": "--set em.rounds=1 --set em.train_steps=1 --set em.steps=1",
    "ar": "--set ar.draws=5000",
}
"""Flags that are added if a matrix contains the attack."""
REPLACEMENTS = [
    (r"^make run", "uebench run --out results/quick"),
    (r"--dataset (cifar10|imagenet_subset|npz:\S+)", "--dataset synthetic"),
    (r" --download| --data-dir \S+", ""),
    (r"--protocol (paper|sprint)", "--protocol quick"),
    (r"^uebench (run|table) (table\d+|\d+)(?!.*--dataset)", r"\g<0> --dataset synthetic"),
    (r"^uebench (run|table) (table\d+|\d+)(?!.*--protocol)", r"\g<0> --protocol quick"),
    (r"^uebench run(?!.*(table|fig|--attacks)).*", r"\g<0> --attacks none,lsp"),
    (r"^uebench run(?!.*(table|fig|--defenses)).*", r"\g<0> --defenses standard,iss"),
    (r"^uebench run fig3.*", r"\g<0> --ratio 0.5,1"),
    (r"^uebench check \S+", r"\g<0> --quick"),
    (r"--seeds 0,1,2", "--seeds 0,1"),
]
"""Replacements for data sets that must be downloaded, protocols that need a GPU, and the like."""
LONG = r"--protocol paper|--protocol sprint|--dataset imagenet|--dataset npz:|^uebench run table2"
"""Runs that take hours: `--dry-run` tests their names and options."""
NOT_RUN = {
    r"^make test": "it runs this test",
    r"^\. \.venv/bin/activate": "the tests already run in an environment",
    r"^python -m pytest my_noise": "tests/cli/test_authoring.py runs a new package's tests",
    r"^pip install 'uebench\[": "it needs a network",
    r"--executor '?(ray|slurm)": "it needs a cluster; tests/execute has one",
}
"""Commands that are not run, and why."""


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line, and its text."""

    language: str
    line: int
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """Yield a file's fenced blocks."""
    text = path.read_text()
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1], text[: match.start()].count("\n") + 2, match[2])


def commands(text: str) -> list[str]:
    """Return the commands of a block, with continued lines joined and comments removed."""
    lines = text.replace("\\\n", " ").splitlines()
    plain = [re.sub(r"\s+# .*", "", line).strip() for line in lines]
    return [" ".join(line.split()) for line in plain if line]


def small(command: str) -> str:
    """Return the smaller form of a command that the test runs."""
    long = re.search(LONG, command)
    for pattern, instead in REPLACEMENTS:
        command = re.sub(pattern, instead, command)
    matrix = re.match(r"uebench (run|table \d|table table)", command)
    named = re.search(r"--attacks (\S+)", command)
    attacks = named[1] if named else "em"  # which all tables have
    for attack, flags in FEWER.items():
        if matrix and re.search(rf"(^|,){attack}\b", attacks):
            command += f" {flags}"
    return command + " --dry-run" * (long is not None and "--dry-run" not in command)


def run_command(command: str, folder: Path) -> None:
    """Run a command that a page asks the reader to type."""
    if any(re.search(pattern, command) for pattern in NOT_RUN):
        return
    if installed := re.match(r"pip install -e '?(\w+)", command):
        (module,) = (folder / installed[1]).glob("uebench_*.py")
        registry.load_file(module)  # as its entry point would
        return
    words = shlex.split(small(command))
    assert words[0] == "uebench", f"the test does not know how to run {command!r}"
    result = CliRunner().invoke(main, words[1:])
    assert result.exit_code == 0, f"{shlex.join(words)}:\n{result.output}\n{result.exception!r}"
    assert result.stdout.strip(), f"{command} prints nothing"


@pytest.fixture
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with small defaults, and restore the registry afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(make_synthetic, "__defaults__", SIZES)
    quick = PROTOCOLS["quick"].model_copy(update=QUICK)
    monkeypatch.setitem(PROTOCOLS, "quick", quick)
    registry.load()
    built_in = {
        kind: {name: cls for name, cls in methods.items() if cls.info.origin == "built-in"}
        for kind, methods in registry._methods.items()
    }
    monkeypatch.setattr(registry, "_methods", built_in)
    monkeypatch.setattr(registry, "_files", [])
    # stands for a released file: one perturbation per training image
    torch.save(torch.full((SIZES[0], 3, SIZES[3], SIZES[3]), 4 / 255), "perturbation.pt")


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    "path",
    [FILES[0], *(pytest.param(p, marks=pytest.mark.slow) for p in FILES[1:])],
    ids=lambda path: "/".join(path.relative_to(ROOT).parts),
)
def test_commands_and_python_blocks_of_a_page_work(path: Path, tmp_path: Path) -> None:
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


def test_every_exception_matches_a_command_on_some_page() -> None:
    typed = [c for p in FILES for b in blocks(p) if b.language == "sh" for c in commands(b.text)]
    for pattern in [*NOT_RUN, *LONG.split("|"), *(each for each, _ in REPLACEMENTS)]:
        assert any(re.search(pattern, line) for line in typed), f"no page has {pattern}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.relative_to(ROOT).parts))
def test_links_point_to_files_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_a_presets_page_has_the_numbers_that_are_published_under_its_methods_name() -> None:
    def rows(name: str) -> list[str]:
        text = (ROOT / "docs" / "defenses" / f"{name}.md").read_text()
        return re.findall(r"^\| `(.+)` \|.* \d", text.partition("## Published")[2], re.MULTILINE)

    assert "at[norm=l2,radius=0.5,steps=10]` | `cuda" in rows("at_l2")
    assert "at[radius=8/255,steps=10]` | `ops" in rows("at8")
    assert "at[radius=8/255,steps=10,augment=cutout]` | `ops" in rows("at8")
    assert "at[steps=10]` | `rem" in rows("at4"), "half of the budget is 4/255"
    assert not [row for row in rows("at8") if "radius=8/255" not in row]
    assert not [row for row in rows("at4") if "radius=8/255" in row or "` | `lsp" in row]
    assert "at[radius=4/255,steps=10]` | `entf[eps=16/255]" in rows("at4"), "another budget"
    assert not rows("trades")


def test_method_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "make.py"))["pages"]()
    assert len(pages) > 20
    for page, text in pages.items():
        assert page.read_text() == text, f"{page.name} is stale; run python docs/make.py"
    present = {
        p
        for folder in ("attacks", "defenses", "victims")
        for p in (ROOT / "docs" / folder).iterdir()
    }
    present.add(ROOT / "docs" / "leaderboard.svg")
    assert present == set(pages), os.linesep.join(str(p) for p in present ^ set(pages))


def test_files_and_names_on_the_architecture_page_exist() -> None:
    text = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    named = re.findall(r"`([\w/]+\.py)`(?: \(((?:`\w+`(?:, )?)+)\))?", text)
    assert len(named) > 30
    for file, names in named:
        candidates = (ROOT / file, ROOT / "uebench" / file, ROOT / "uebench" / "execute" / file)
        path = next((each for each in candidates if each.is_file()), None)
        assert path is not None, f"architecture.md names {file}, which does not exist"
        for name in re.findall(r"\w+", names):
            assert re.search(rf"(def|class) {name}\b", path.read_text()), f"{file} has no {name}"
