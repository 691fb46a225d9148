"""Names from disk go through every verb: nothing obeys them, and none ends in a traceback."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from uebench.cli import main

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NASTY = os.fsdecode(b"\xe9\x1b[2J\xe2\x80\xae<u>&$_")
"""A byte that is not UTF-8, an escape sequence, a mark that turns the direction, HTML, LaTeX."""
CLASSES = (f"a{NASTY}", "b\nc", "d")
SMALL = ["--arch", "resnet9[width=2]", "--epochs", "1", "--device", "cpu", "--jobs", "1"]


def call(*arguments: str) -> Result:
    """Run a verb as on a terminal; its output must be harmless and can be written as UTF-8."""
    result = CliRunner().invoke(main, arguments, color=True)
    assert not CONTROL.search(result.output), repr(result.output)
    assert "Traceback" not in result.output
    return result


def worked(*arguments: str) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def clean_files(folder: Path) -> dict[str, str]:
    """Return the texts of a results folder by name."""
    texts = {p.name: p.read_text() for p in folder.iterdir() if p.is_file()}
    for name, text in texts.items():
        assert not CONTROL.search(text), f"{name}: {CONTROL.search(text)!r}"
    assert "<u>" not in texts["index.html"]
    assert "&lt;u&gt;" in texts["index.html"]
    assert "\\$\\_" in texts["leaderboard.tex"]
    return texts


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture folder whose every name is nasty."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / f"set{NASTY}" / part / name
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(60 * label, 60 * label + 60, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}{NASTY}.png")
    (tmp_path / f"set{NASTY}/train/d/note{NASTY}.txt").write_text("x")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_a_run_and_what_is_made_of_it(here: Path) -> None:
    data, out = f"folder:../set{NASTY}", f"out{NASTY}"
    matrix = ["--attacks", "none,lsp", "--defenses", "standard", "--dataset", data, *SMALL]
    worked("run", *matrix, "--out", out)
    texts = clean_files(here / out)
    assert r"set\xe9\x1b[2J\u202e<u>&$_" in texts["cells.csv"]
    config = json.loads(texts["run.json"])["config"]
    assert config["dataset"] == [data], "a file says exactly what was typed"
    for form in ("text", "latex", "markdown", "csv", "json"):
        worked("table", out, "--format", form)
    assert worked("report", out).stdout.strip().endswith("index.html")
    worked("plot", out, "--kind", "confusion", "--out", f"plots{NASTY}")
    worked("publish", out, f"bundle{NASTY}", "--licence", "MIT")
    for path in (here / f"bundle{NASTY}").iterdir():
        assert not path.is_file() or not CONTROL.search(path.read_text()), path.name
    worked("validate", f"bundle{NASTY}")


def test_poisons(here: Path) -> None:
    data = ["--dataset", f"folder:../set{NASTY}"]
    for suffix in (".npz", ""):
        poison = f"poison{NASTY}{suffix}"
        told = worked("craft", "lsp", *data, "--out", poison, "--picture", f"{suffix}{NASTY}.png")
        assert "wrote poison" in told.stderr
        worked("audit", poison, *data)
        worked("import", poison, *data, "--name", f"from{suffix.replace('.', '_')}")
    worked("card", f"poison{NASTY}.npz", *data, "--licence", "MIT")
    worked("list", "attacks")
    worked("store", "ls")


def test_a_plug_in(here: Path) -> None:
    source = (
        "from uebench import Attack, attack\n\n"
        '@attack("mine", title="Mine", source="none")\n'
        'class Mine(Attack):\n    """Nothing."""\n\n'
        "    def perturb(self, data, run):\n        return data.pixels() * 0\n"
    )
    (here / f"plug{NASTY}.py").write_text(source)
    plugin = ["--plugin", f"plug{NASTY}.py"]
    worked("show", "mine", *plugin)
    (here / f"broken{NASTY}.py").write_text("raise ValueError('\\x1b[2J')")
    result = call("show", "mine", "--plugin", f"broken{NASTY}.py")
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", NASTY],
        ["report", NASTY],
        ["validate", NASTY],
        ["verify", NASTY],
        ["run", f"{NASTY}.yaml"],
        ["run", "--plugin", f"{NASTY}.py"],
        ["run", "--dataset", f"npz:{NASTY}.npz"],
        ["run", "--dataset", f"folder:{NASTY}"],
        ["run", "--dataset", "imagenet_subset", "--data-dir", NASTY],
        ["run", "--dataset", "cifar10", "--data-dir", NASTY],
        ["run", "--dataset", f"folder:../set{NASTY}", "--classes", NASTY],
        ["audit", f"{NASTY}.npz", "--dataset", f"folder:../set{NASTY}"],
        ["import", NASTY, "--dataset", f"folder:../set{NASTY}", "--name", NASTY],
    ],
)
def test_refusals(arguments: list[str], here: Path) -> None:
    assert call(*arguments).exit_code == 2
