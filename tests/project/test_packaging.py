"""A wheel contains all folders as `uebench`; an uninstalled clone explains how to install it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["uebench", "attacks", "defenses", "configs", "results/published"]
PARTS = [*FOLDERS, "setup.py", "pyproject.toml", "README.md", "LICENSE"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the files that a wheel is built from."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    return tmp_path


def test_a_wheel_has_every_package(clone: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out"]
    result = subprocess.run(build, cwd=clone, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    (wheel,) = (clone / "out").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"uebench/py.typed", "uebench/configs/quick.yaml"} <= names
    for path in (*ROOT.glob("configs/*.yaml"), *ROOT.glob("results/published/*.csv")):
        assert f"uebench/{path.parent.name}/{path.name}" in names
    for path in (ROOT / "uebench/report/page").iterdir():
        assert f"uebench/report/page/{path.name}" in names, (
            "the report's template, style and script"
        )
    for path in (ROOT / "uebench/suite/templates").iterdir():
        assert f"uebench/suite/templates/{path.name}" in names, "what `uebench new` writes"
    for folder in ("attacks", "defenses"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"uebench/{folder}/{path.name}" in names
    for path in (ROOT / "uebench").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names, "setup.py did not find its package"
    assert not any(name.startswith(("attacks/", "defenses/", "tests/")) for name in names)


def test_an_uninstalled_clone_explains_how_to_install_it(clone: Path) -> None:
    # without the editable install's hook: only this folder and the dependencies are importable
    code = (
        "import sys;"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        "from uebench.cli import main; main(['list', 'attacks'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 2, result.stderr
    assert "pip install -e ." in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
