"""What is reported as a fault of somebody's method, and what as the user's mistake."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uebench.cli import main

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
METHOD = '''"""A stranger's attack."""
import uebench


@uebench.attack("stranger", title="Stranger", source="tests")
class Stranger(uebench.Attack):
    """Does nothing, or breaks."""

    def {step}:
        """Break."""
        {body}
'''
RESOLVE = "resolve(self, facts)"
PERTURB = "perturb(self, data, run)"


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UEBENCH_DEBUG", "")


def write_method(step: str, body: str) -> None:
    text = METHOD.format(step=step, body=body)
    if step != PERTURB:
        text += f"\n    def {PERTURB}:\n        return 0 * data.pixels()\n"
    Path("stranger.py").write_text(text)


def craft(*more: str) -> Result:
    where = ["--plugin", "stranger.py", "--dataset", DATA, "--out", "a.npz"]
    return call("craft", "stranger", *where, *more)


@pytest.mark.parametrize(
    ("step", "body", "reported"),
    [
        (
            RESOLVE,
            'return {}["oops"]',
            "KeyError: 'oops' (stranger.py, line 11: return {}[\"oops\"])",
        ),
        (RESOLVE, 'raise ValueError("no")', "ValueError: no (stranger.py, line 11"),
        (PERTURB, 'raise ValueError("no")', "ValueError: no (stranger.py, line 11"),
        (
            PERTURB,
            "return None",
            "attack stranger: perturb returned nothing (is its `return` missing?); float [40, 3,",
        ),
        ("export(self, data, delta)", "return None", "attack stranger: export returned nothing"),
        (
            "budget(self, shape)",
            "return 8 / 255",
            "budget returned 0.03137254901960784; a Budget",
        ),
        (
            PERTURB,
            "data.images.fill_(0); return data.pixels()",
            "stranger: the clean images or labels were changed in place; work on data.pixels()",
        ),
        (PERTURB, "data.labels.fill_(0); return 0 * data.pixels()", "were changed in place"),
    ],
)
def test_a_method_that_breaks_is_reported_as_its_own_fault(
    step: str, body: str, reported: str
) -> None:
    write_method(step, body)
    result = craft()
    assert result.exit_code == 1
    assert reported in result.stderr
    assert "Usage" not in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("a.npz").exists()


def test_a_plugin_that_breaks_at_import_is_reported_with_its_line() -> None:
    Path("stranger.py").write_text("import os\n\n{}['oops']\n")
    result = craft()
    assert result.exit_code == 1
    assert "breaks at import: KeyError: 'oops' (stranger.py, line 3: {}['oops'])" in result.stderr


def test_a_method_may_refuse_options_with_a_user_error() -> None:
    write_method(RESOLVE, 'raise uebench.UserError("two of these are too many; take one")')
    result = craft()
    assert result.exit_code == 2
    assert "two of these are too many; take one" in result.stderr


def test_a_mistyped_option_of_a_plugin_stays_the_users_mistake() -> None:
    write_method(PERTURB, "return data.images * 0.0")
    result = call(
        *("craft", "stranger[epps=1]", "--plugin", "stranger.py"),
        *("--dataset", DATA, "--out", "a.npz"),
    )
    assert result.exit_code == 2
    assert "did you mean eps?" in result.stderr


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback_of_anything(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_method(RESOLVE, 'return {}["oops"]')
    if how == "environment":
        monkeypatch.setenv("UEBENCH_DEBUG", "1")
    result = craft(*(["--debug"] if how == "flag" else []))
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "KeyError: 'oops'" in result.stderr


def test_debug_shows_the_traceback_of_a_mistake_too() -> None:
    result = call("--debug", "show", "emm")
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr


def test_a_fault_of_the_suite_names_file_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from uebench.suite import listing

    def broken(kind: str, name: str) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(listing, "describe", broken)
    result = call("show", "attack", "em")
    assert result.exit_code == 1
    assert "unexpected ZeroDivisionError: by nothing (test_faults.py, line " in result.stderr


DEFENSE = '''"""A stranger's defense."""
import torch
import uebench


@uebench.defense("shield", title="ISS", source="tests")
class Shield(uebench.Defense):
    """Does nothing, or breaks."""

    def {step}:
        """Break."""
        {body}
'''
PREPARE = "prepare(self, data, run)"


@pytest.mark.parametrize(
    ("step", "body", "reported"),
    [
        (PREPARE, "pass", "prepare returned nothing (is its `return` missing?); a Split is needed"),
        (PREPARE, "return data.images", "prepare returned uint8 [40, 3, 16, 16]; a Split is"),
        (PREPARE, "return data.subset(data.labels < 0)", "prepare returned 0 images [3, 16, 16]"),
        (
            PREPARE,
            "return data.with_images(data.images[..., :8])",
            "prepare returned 40 images [3, 16, 8] of 2 classes; at least one image [3, 16, 16] of",
        ),
        (
            PREPARE,
            "data.images.numpy()[:] = 0; return data",
            "prepare changed the images or labels that it was given, in place",
        ),
        ("before_crop(self, images, run)", "pass", "before_crop returned nothing"),
        (
            "before_crop(self, images, run)",
            "return images[:1]",
            "before_crop returned uint8 [1, 3, 16, 16]; uint8 or float32 [20, 3, height, width]",
        ),
        ("after_crop(self, images, run)", "pass", "after_crop returned nothing"),
        (
            "after_crop(self, images, run)",
            "return images[..., :8]",
            "after_crop returned float32 [20, 3, 16, 8]; float32 [20, 3, 16, 16] is needed",
        ),
        ("loss(self, model, images, labels, run)", "pass", "loss returned nothing"),
        (
            "loss(self, model, images, labels, run)",
            "return model(images).float().mean().detach()",
            "loss returned float32 [] without gradient; one number with a gradient is needed",
        ),
        (
            "before_crop(self, images, run)",
            "return images.double() / 255",
            "before_crop returned float64 [20, 3, 16, 16]; uint8 or float32 [20, 3, height,",
        ),
        ("adjust(self, protocol)", "protocol.asked(lr=0.1)", "adjust returned nothing (is its"),
        ("effort(self)", "return -1.0", "effort returned -1.0; a number above 0 is needed"),
    ],
)
def test_what_a_defense_returns_is_checked(step: str, body: str, reported: str) -> None:
    Path("shield.py").write_text(DEFENSE.format(step=step, body=body))
    matrix = ["--attacks", "none", "--defenses", "standard,shield", "--dataset", DATA]
    small = ["--arch", "resnet9[width=2]", "--epochs", "1", "--set", "protocol.batch_size=20"]
    result = call("run", *matrix, *small, "--plugin", "shield.py", "--device", "cpu", "--out", "o")
    assert result.exit_code == 1
    told = " ".join(result.stderr.split())
    assert f"defense shield: {reported}" in told
    assert "Traceback" not in result.stderr


def test_methods_of_one_title_are_told_apart() -> None:
    Path("shield.py").write_text(DEFENSE.format(step=PREPARE, body="return data"))
    matrix = ["--attacks", "none", "--defenses", "iss,shield", "--dataset", DATA]
    small = ["--arch", "resnet9[width=2]", "--epochs", "1", "--set", "protocol.batch_size=20"]
    result = call("run", *matrix, *small, "--plugin", "shield.py", "--device", "cpu", "--out", "o")
    assert result.exit_code == 0, result.output
    for text in (result.stdout, Path("o/leaderboard.md").read_text()):
        assert "ISS (iss)" in text
        assert "ISS (shield)" in text
    assert call("validate", "o").exit_code == 0
    assert "ISS (shield)" in call("table", "o").stdout


@pytest.mark.parametrize("effort", ["2", "True", "torch.tensor(2.0).numpy()", "torch.tensor(2.0)"])
def test_an_effort_may_be_any_sort_of_number(effort: str) -> None:
    Path("shield.py").write_text(DEFENSE.format(step="effort(self)", body=f"return {effort}"))
    matrix = ["--attacks", "none", "--defenses", "shield", "--dataset", DATA]
    small = ["--arch", "resnet9[width=2]", "--epochs", "1", "--set", "protocol.batch_size=20"]
    result = call("run", *matrix, *small, "--plugin", "shield.py", "--device", "cpu", "--out", "o")
    assert result.exit_code == 0, result.output


def test_a_victim_without_an_effort_fails_alone() -> None:
    Path("vague.py").write_text(VICTIM)
    matrix = ["--attacks", "none", "--defenses", "standard", "--victims", "supervised,vague"]
    small = ["--arch", "resnet9[width=2]", "--epochs", "1", "--set", "protocol.batch_size=20"]
    where = ["--dataset", DATA, "--plugin", "vague.py", "--device", "cpu", "--out", "o"]
    result = call("run", *matrix, *small, *where)
    assert result.exit_code == 1
    assert "victim vague: effort returned nothing (is its `return` missing?)" in result.stderr
    assert Path("o/cells.csv").read_text().count(",ok,") == 1


VICTIM = '''"""A stranger's victim."""
import uebench


@uebench.victim("vague", title="Vague", source="tests")
class Vague(uebench.Victim):
    """Knows nothing of its effort."""

    def effort(self, protocol):
        """Break."""

    def train(self, data, target, run):
        """Return an untrained network."""
        return target.judged(run.network(target.arch), data, run)
'''
