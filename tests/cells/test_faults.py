"""A method that breaks, in planning or in computing, harms its own cells and no others."""

import errno
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import uebench
from uebench.cells.failure import failure
from uebench.cli import main
from uebench.common.errors import MethodError
from uebench.methods import registry
from uebench.store.store import Store

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
BROKEN_ATTACK = '''
from uebench import Attack, attack

@attack("odd", title="Odd", source="a test")
class Odd(Attack):
    """Breaks."""
    def perturb(self, data, run):
        """Return nothing."""
    def {step}(self, *arguments):
        """Break."""
        return {{}}["oops"]
'''
BROKEN_DEFENSE = '''
from uebench import Defense, defense

@defense("odd", title="Odd", source="a test")
class Odd(Defense):
    """Breaks."""
    def {step}(self, *arguments):
        """Break."""
        return {{}}["oops"]
'''


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the plug-ins of a test."""
    registry.load()
    monkeypatch.setattr(registry, "_methods", {k: dict(v) for k, v in registry._methods.items()})
    monkeypatch.setattr(registry, "_files", [])


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *(("attack", step) for step in ("resolve", "budget", "options", "recipe")),
        *(("defense", step) for step in ("resolve", "adjust", "options", "recipe", "effort")),
        ("attack", "perturb"),
        ("defense", "prepare"),
        ("defense", "loss"),
    ],
)
def test_a_method_that_breaks_fails_its_own_cells_alone(
    kind: str, step: str, tmp_path: Path
) -> None:
    plugin, out = tmp_path / "odd.py", tmp_path / "out"
    text = BROKEN_ATTACK if kind == "attack" else BROKEN_DEFENSE
    plugin.write_text(text.format(step=step))
    methods = {"attacks": "none,lsp", "defenses": "standard"}
    methods[f"{kind}s"] += ",odd"
    options = ["--attacks", methods["attacks"], "--defenses", methods["defenses"]]
    options += ["--dataset", DATA, "--arch", "resnet9[width=2]", "--device", "cpu", "--jobs", "1"]
    options += ["--epochs", "1", "--plugin", str(plugin), "--out", str(out)]
    result = CliRunner().invoke(main, ["run", *options])
    assert result.exit_code == 1, result.output
    assert "odd.py, line" in result.stderr
    cells = uebench.report.read_cells(out)
    odd = cells[kind] == "odd"
    assert set(cells["status"][odd]) == {"failed"}
    assert set(cells["status"][~odd]) == {"ok"}
    assert (
        f"{kind} odd failed in {step}: KeyError: 'oops' (odd.py, line "
        in cells["error"][odd].iloc[0]
    )
    error = cells["error"][odd].iloc[0]
    assert error.startswith(f"{kind} odd failed")
    assert error.count("odd.py") == 1
    failures = json.loads((out / "run.json").read_text())["failures"]
    assert len(failures) == odd.sum()
    assert all("KeyError: 'oops'" in failure["traceback"] for failure in failures.values())


@pytest.mark.parametrize("step", ["adjust", "prepare", "loss"])
def test_train_reports_a_defense_that_breaks(step: str, tmp_path: Path, store: Store) -> None:
    (tmp_path / "odd.py").write_text(BROKEN_DEFENSE.format(step=step))
    registry.load_file(tmp_path / "odd.py")
    data = uebench.load_dataset(DATA)
    poison = uebench.craft("lsp", data, store=store)
    with pytest.raises(MethodError, match=rf"failed in {step}: KeyError: 'oops' \(odd\.py, line"):
        uebench.train(poison, "odd", data, arch="resnet9[width=2]", epochs=1)


def test_craft_reports_an_attack_that_breaks(tmp_path: Path, store: Store) -> None:
    (tmp_path / "odd.py").write_text(BROKEN_ATTACK.format(step="perturb"))
    registry.load_file(tmp_path / "odd.py")
    with pytest.raises(MethodError, match=r"failed in perturb: KeyError: 'oops' \(odd\.py, line"):
        uebench.craft("odd", DATA, store=store)


def test_a_method_that_runs_out_of_memory_is_not_to_blame() -> None:
    fault = MethodError("attack odd failed in perturb: RuntimeError: can't allocate memory")
    fault.__cause__ = RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
    assert failure(fault).error.startswith("out of memory (RuntimeError: can't allocate memory")
    fault.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert failure(fault).full


def test_a_dry_run_reports_a_defense_that_breaks(tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(BROKEN_DEFENSE.format(step="loss"))
    options = ["--attacks", "none", "--defenses", "odd", "--dataset", DATA, "--device", "cpu"]
    options += ["--arch", "resnet9[width=2]", "--plugin", str(plugin), "--dry-run"]
    result = CliRunner().invoke(main, ["run", *options])
    assert result.exit_code == 1, result.output
    assert "defense odd failed in loss: KeyError: 'oops' (odd.py, line" in result.stderr
