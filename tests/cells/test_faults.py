"""A method that breaks while a matrix is planned harms its own cells and no others."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import uebench
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
    ],
)
def test_a_method_that_breaks_in_planning_fails_its_own_cells_alone(
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
    failures = json.loads((out / "run.json").read_text())["failures"]
    assert len(failures) == odd.sum()
    assert all("KeyError: 'oops'" in failure["traceback"] for failure in failures.values())


def test_train_reports_a_defense_that_breaks(tmp_path: Path, store: Store) -> None:
    (tmp_path / "odd.py").write_text(BROKEN_DEFENSE.format(step="adjust"))
    registry.load_file(tmp_path / "odd.py")
    data = uebench.load_dataset(DATA)
    poison = uebench.craft("lsp", data, store=store)
    with pytest.raises(MethodError, match=r"failed in adjust: KeyError: 'oops' \(odd\.py, line"):
        uebench.train(poison, "odd", data, arch="resnet9[width=2]", epochs=1)
