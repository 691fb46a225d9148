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

@attack("{name}", title="Odd", source="a test")
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

@defense("{name}", title="Odd", source="a test")
class Odd(Defense):
    """Breaks."""
    def {step}(self, *arguments):
        """Break."""
        return {{}}["oops"]
'''
STEPS = {
    "attack": ("resolve", "budget", "options", "recipe", "perturb"),
    "defense": ("resolve", "adjust", "options", "recipe", "effort", "prepare", "loss"),
}


@pytest.fixture(scope="module", params=STEPS)
def broken_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, Path]:
    """A kind of method, of which one breaks in each step; a run's stderr, and its results."""
    kind, root = request.param, tmp_path_factory.mktemp("broken")
    text = BROKEN_ATTACK if kind == "attack" else BROKEN_DEFENSE
    plugin = root / "odd.py"
    plugin.write_text("".join(text.format(name=f"odd_{s}", step=s) for s in STEPS[kind]))
    methods = {"attack": "none,lsp", "defense": "standard"}
    methods[kind] += "".join(f",odd_{step}" for step in STEPS[kind])
    options = ["--attacks", methods["attack"], "--defenses", methods["defense"]]
    options += ["--dataset", DATA, "--arch", "resnet9[width=2]", "--device", "cpu", "--jobs", "1"]
    options += ["--epochs", "1", "--plugin", str(plugin), "--out", str(root / "out")]
    registry.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root / "home"))
        known = {k: dict(v) for k, v in registry._methods.items()}
        patch.setattr(registry, "_methods", known)
        patch.setattr(registry, "_files", [])
        result = CliRunner().invoke(main, ["run", *options])
    assert result.exit_code == 1, result.output
    return kind, result.stderr, root / "out"


def test_a_method_that_breaks_fails_its_own_cells_alone(
    broken_run: tuple[str, str, Path],
) -> None:
    kind, stderr, out = broken_run
    assert "odd.py, line" in stderr
    cells = uebench.report.read_cells(out)
    for step in STEPS[kind]:
        odd = cells[kind] == f"odd_{step}"
        assert set(cells["status"][odd]) == {"failed"}, step
        error = cells["error"][odd].iloc[0]
        assert error.startswith(
            f"{kind} odd_{step} failed in {step}: KeyError: 'oops' (odd.py, line "
        )
        assert error.count("odd.py") == 1
    is_broken = cells[kind].str.startswith("odd")
    assert set(cells["status"][~is_broken]) == {"ok"}
    failures = json.loads((out / "run.json").read_text())["failures"]
    assert len(failures) == is_broken.sum()
    assert all("KeyError: 'oops'" in failure["traceback"] for failure in failures.values())


@pytest.mark.parametrize("step", ["adjust", "prepare", "loss"])
def test_train_reports_a_defense_that_breaks(step: str, tmp_path: Path, store: Store) -> None:
    (tmp_path / "odd.py").write_text(BROKEN_DEFENSE.format(name="odd", step=step))
    registry.load_file(tmp_path / "odd.py")
    data = uebench.load_dataset(DATA)
    poison = uebench.craft("lsp", data, store=store)
    with pytest.raises(MethodError, match=rf"failed in {step}: KeyError: 'oops' \(odd\.py, line"):
        uebench.train(poison, "odd", data, arch="resnet9[width=2]", epochs=1)


def test_craft_reports_an_attack_that_breaks(tmp_path: Path, store: Store) -> None:
    (tmp_path / "odd.py").write_text(BROKEN_ATTACK.format(name="odd", step="perturb"))
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
    plugin.write_text(BROKEN_DEFENSE.format(name="odd", step="loss"))
    options = ["--attacks", "none", "--defenses", "odd", "--dataset", DATA, "--device", "cpu"]
    options += ["--arch", "resnet9[width=2]", "--plugin", str(plugin), "--dry-run"]
    result = CliRunner().invoke(main, ["run", *options])
    assert result.exit_code == 1, result.output
    assert "defense odd failed in loss: KeyError: 'oops' (odd.py, line" in result.stderr
