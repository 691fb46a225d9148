"""`uebench new` writes a package that passes at once; `uebench check` tells what fails."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uebench.cli import main
from uebench.report import read_cells

BAD = '''
"""Signs without a seed."""
import torch
from uebench import Attack, attack


@attack("bad_signs", title="Bad", source="a test")
class Bad(Attack):
    """Random signs from the global generator."""

    def perturb(self, data, run):
        return self.eps * (2.0 * torch.randint(0, 2, data.images.shape) - 1)
'''


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)


BUILD = """
import os, sys
from setuptools.build_meta import build_wheel

site, *packages = sys.argv[1:]
for package in packages:
    os.chdir(package)
    build_wheel(site)
"""
# one interpreter for both, since each would load torch again
TRY = """
import json, sys
import pytest
from click.testing import CliRunner
from uebench.cli import main

commands, folders = json.loads(sys.argv[1]), sys.argv[2:]
status = int(pytest.main(["-q", "-p", "no:cacheprovider", *folders]))
results = [CliRunner().invoke(main, arguments) for arguments in commands]
print(json.dumps([status, *([each.exit_code, each.stdout] for each in results)]))
"""
NAMES = {"attack": "my_noise", "defense": "fog", "victim": "nearest"}


def python(code: str, folder: Path, *arguments: str, **environment: str) -> str:
    """Run a program in an interpreter of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [["attack"], ["defense", "victim"]], ids="-".join)
def test_new_packages_pass_at_once(kinds: list[str], tmp_path: Path) -> None:
    for kind in kinds:
        name = NAMES[kind]
        result = call("new", kind, name.replace("_", "-"))
        assert result.exit_code == 0, result.output
        folder = tmp_path / name
        assert {path.name for path in folder.iterdir()} == {
            "README.md",
            "pyproject.toml",
            f"test_{name}.py",
            f"uebench_{name}.py",
        }
        assert sorted(result.stdout.split()) == sorted(f"{name}/{p.name}" for p in folder.iterdir())
        assert len((folder / f"uebench_{name}.py").read_text().splitlines()) < 40
        assert "$" not in "".join(path.read_text() for path in folder.iterdir())

    site, folders = tmp_path / "site", [str(tmp_path / NAMES[kind]) for kind in kinds]
    site.mkdir()
    python(BUILD, tmp_path, str(site), *folders)
    for wheel in site.glob("*.whl"):  # unpacked as pip would
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)

    commands = [["list", f"{kind}s", "--json"] for kind in kinds]
    if "attack" in kinds:
        data = "--dataset synthetic[n_train=40,n_test=20,n_classes=2,size=16] --device cpu"
        flags = "--attacks my_noise --defenses standard --epochs 1 --arch resnet9[width=2]"
        commands.append(["run", *f"{flags} {data} --out made".split()])
    output = python(TRY, tmp_path, json.dumps(commands), *folders, PYTHONPATH=str(site))
    status, *results = json.loads(output.splitlines()[-1])
    assert status == 0, output
    assert "passed" in output
    assert [exit_code for exit_code, _ in results] == [0] * len(commands), output
    for kind, (_, listing) in zip(kinds, results, strict=False):
        (row,) = [row for row in json.loads(listing) if row["name"] == NAMES[kind]]
        assert row["origin"] == f"entry point {NAMES[kind]}"
    if "attack" in kinds:
        (cell,) = read_cells(tmp_path / "made").to_dict("records")
        assert cell["attack"] == "my_noise"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("attack 9lives", "not a method's name"),
        ("attack Noise", "not a method's name"),
        ("attack my.noise", "not a method's name"),
        ("attack ../noise", "not a method's name"),
        ("attack _noise", "must begin with a letter"),
        ("attack em", "the attack em is built in; choose another name"),
        ("defense iss", "the defense iss is built in; choose another name"),
        ("attack there", "there already exists"),
        ("attack noise --into nowhere", "nowhere is not a directory"),
        ("attac noise", "is not one of"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(
    arguments: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    result = call("new", *arguments.split())
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_check_passes_a_correct_method() -> None:
    result = call("check", "none", "--quick")
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.stdout
    assert "9 of 9 promises are kept" in result.stdout


def test_check_reports_what_fails_and_how_to_fix_it(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    result = call("check", "--plugin", "bad.py", "--quick")
    assert result.exit_code == 1, result.output
    text = " ".join(result.stdout.split())
    assert "attack bad_signs (file bad.py)" in text
    assert "FAIL randomness a global generator" in text
    assert "to fix it: draw with generator=run.rng" in text
    told = json.loads(call("check", "bad_signs", "--plugin", "bad.py", "--quick", "--json").stdout)
    assert told["passed"] is False
    failed = {o["promise"] for o in told["outcomes"] if o["status"] == "failed"}
    assert failed == {"norms", "randomness"}
    assert all(o["remedy"] for o in told["outcomes"] if o["status"] == "failed")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("emm", "did you mean em"),
        ("", "give NAME, or --plugin FILE"),
        ("em[eps=8]", "divide by 255"),
        ("em --kind defense", "unknown defense"),
        ("imported:x", "uebench audit"),
        ("--plugin empty.py", "adds no method"),
        ("em --plugin none.py", "no such file"),
    ],
)
def test_check_refuses_what_cannot_be_checked(arguments: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    result = call("check", *arguments.split())
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_name_of_both_kinds_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "from uebench import Defense, defense\n"
        "@defense('none', title='None', source='a test')\n"
        "class Nothing(Defense):\n    'Nothing.'\n"
    )
    result = call("check", "none", "--plugin", "two.py")
    assert result.exit_code == 2
    assert "--kind attack or --kind defense" in result.stderr
    chosen = call("check", "none", "--plugin", "two.py", "--quick", "--kind", "defense")
    assert chosen.stdout.startswith("defense none")


def test_one_fault_is_reported_once_and_untested_promises_are_not_called_kept(
    tmp_path: Path,
) -> None:
    broken = BAD.replace("return self.eps", 'return {}["palette"] or self.eps')
    (tmp_path / "breaks.py").write_text(broken.replace("bad_signs", "breaks"))
    result = call("check", "breaks", "--plugin", "breaks.py")
    assert result.exit_code == 1, result.output
    text = " ".join(result.stdout.split())
    assert text.count("KeyError: 'palette'") == 1
    for name in ("norms", "randomness", "speed", "memory"):
        assert f"FAIL {name} the same as above" in text
