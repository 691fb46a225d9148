"""What is built contains everything and works by itself; a clone explains how to install it."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
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


def built(clone: Path, *what: str) -> Path:
    """Return the wheel that `python -m build` writes; by default it is made from the sdist."""
    build = [sys.executable, "-m", "build", *what, "--no-isolation", "--outdir", "out"]
    result = subprocess.run(build, cwd=clone, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    (wheel,) = (clone / "out").glob("*.whl")
    return wheel


def test_a_wheel_has_every_package(clone: Path) -> None:
    wheel = built(clone, "--wheel")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"uebench/py.typed", "uebench/configs/quick.yaml"} <= names
    for path in (*ROOT.glob("configs/*.yaml"), *ROOT.glob("results/published/*.csv")):
        assert f"uebench/{path.parent.name}/{path.name}" in names
    for path in (ROOT / "uebench/report/page").iterdir():
        assert f"uebench/report/page/{path.name}" in names, (
            "the report's template, style and script"
        )
    for path in (ROOT / "uebench/report/schemas").iterdir():
        assert f"uebench/report/schemas/{path.name}" in names, "the JSON schemas of results"
    for path in (ROOT / "uebench/suite/templates").iterdir():
        assert f"uebench/suite/templates/{path.name}" in names, "what `uebench new` writes"
    for folder in ("attacks", "defenses"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"uebench/{folder}/{path.name}" in names
    for path in (ROOT / "uebench").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names, "setup.py did not find its package"
    assert not any(name.startswith(("attacks/", "defenses/", "tests/")) for name in names)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wheel_made_from_the_sdist_works_in_a_fresh_environment(
    clone: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(built(clone))]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    # The dependencies are those of this environment. Since .pth files of a folder that a .pth file
    # names are not read, the editable install of uebench is out of reach.
    (packages,) = environment.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(here))

    def run(*words: str) -> str:
        done = subprocess.run(
            words,
            cwd=environment,
            env={**os.environ, "UEBENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = run(str(python), "-c", "import uebench, uebench.attacks as a; print(*a.__path__)")
    assert where.strip() == str(packages / "uebench" / "attacks")
    uebench = str(environment / "bin" / "uebench")
    assert run(uebench, "--version").split()[-1] == metadata.version("uebench")
    matrix = [
        "--attacks",
        "none,lsp",
        "--defenses",
        "standard",
        "--epochs",
        "1",
        "--out",
        "results",
    ]
    data = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
    assert "LSP" in run(uebench, "run", *matrix, "--dataset", data)
    assert "FAIL" not in run(uebench, "validate", "results")


@pytest.mark.slow
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
