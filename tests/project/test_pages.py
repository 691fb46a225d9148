"""Pages of the committed results are drawn from the data next to them, and are not committed."""

import base64
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from uebench.share.validate import validate

ROOT = Path(__file__).parents[2]
SUMMARIES = r"(leaderboard|table)\.(csv|md|tex)"
COMMITTED = rf"(cells\.csv|run\.json|records\.json|detection\.csv|{SUMMARIES}|pictures/[\w-]+\.png)"
"""The files of a results folder that are committed: data, small tables, and pictures of poisons,
which only the images of the poison itself can give."""


@pytest.mark.slow
def test_make_pages_draws_the_page_of_a_committed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10-em"
    shutil.copytree(ROOT / "results/cifar10-em", folder)
    (folder / "index.html").unlink(missing_ok=True)
    scripts = tmp_path / "venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "uebench").symlink_to(Path(sys.executable).parent / "uebench")
    (scripts.parent / ".installed").touch()
    made = subprocess.run(
        ["make", "pages", f"VENV={scripts.parent}", f"RESULTS={folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    page = html.unescape((folder / "index.html").read_text())
    for accuracy in pd.read_csv(folder / "cells.csv")["test_acc"]:
        assert re.search(rf"\b{100 * accuracy:.1f}\b", page), f"the page lacks {accuracy}"
    (picture,) = (folder / "pictures").iterdir()
    assert base64.b64encode(picture.read_bytes()).decode() in page
    (displays,) = (finding for finding in validate(folder) if finding.test == "displays")
    assert displays.problems == ()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_results_folders_hold_only_what_cannot_be_drawn_again() -> None:
    def git(*words: str) -> list[str]:
        run = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return run.stdout.splitlines()

    folders = [path.parent for path in ROOT.glob("results/*/cells.csv")]
    assert folders
    for folder in folders:
        name = folder.relative_to(ROOT).as_posix()
        for path in git("ls-files", name):
            assert re.fullmatch(COMMITTED, path.removeprefix(f"{name}/")), f"{path} is committed"
        assert git("check-ignore", f"{name}/index.html", f"{name}/plots/curves.png")
