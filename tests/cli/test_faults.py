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
        (PERTURB, "return None", "perturb returned NoneType"),
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
