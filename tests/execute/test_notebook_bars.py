"""In a notebook, progress is shown as bars in HTML; elsewhere as before."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import uebench
from uebench.data import Dataset
from uebench.execute import notebook_bars
from uebench.execute.notebook_bars import NotebookBars
from uebench.execute.progress import step_display

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The HTML of each drawing, in a process that looks like the kernel of a notebook."""
    drawings: list[str] = []

    def display(shown: Any, display_id: bool = False) -> Any:
        drawings.append(shown._repr_html_())
        return SimpleNamespace(update=lambda again: drawings.append(again._repr_html_()))

    kernel = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1), display=SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setattr(notebook_bars, "REDRAW_EVERY_S", 0)
    return drawings


def test_a_run_shows_bars(drawn: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    uebench.run(["none", "lsp"], "standard", DATA, arch="resnet9[width=2]", epochs=1)
    assert any('<progress value="0" max="3">' in html for html in drawn), "a poison and two cells"
    assert '<progress value="3" max="3">' in drawn[-1]
    assert drawn[-1].count("<progress") == 1, "the bars of finished tasks are gone"
    assert "3 of 3" in drawn[-1]
    assert "lsp x standard" in "".join(drawn)
    assert capfd.readouterr().err == ""
    n_drawn = len(drawn)
    uebench.run(["none", "lsp"], "standard", DATA, arch="resnet9[width=2]", epochs=1)
    assert len(drawn) == n_drawn, "nothing is left to do"


def test_crafting_and_training_show_a_bar_unless_they_are_to_be_quiet(
    drawn: list[str], tiny: Dataset
) -> None:
    poison = uebench.craft("lsp", tiny, quiet=True)
    uebench.train(poison, "standard", tiny, arch="resnet9[width=2]", epochs=2, quiet=True)
    assert not drawn
    uebench.craft("lsp", tiny, seed=1)
    assert "craft lsp" in drawn[-1]
    uebench.train(poison, "standard", tiny, arch="resnet9[width=2]", epochs=2)
    assert "train under standard" in drawn[-1]
    assert '<progress value="100" max="100">' in drawn[-1]
    assert any("epoch 2, loss" in html for html in drawn)


def test_texts_are_no_html(drawn: list[str]) -> None:
    with step_display("<script>", quiet=False) as show:
        show(0.5, "<img src=x>")
    assert "&lt;script&gt;" in drawn[-1]
    assert any("&lt;img" in html for html in drawn)
    assert not any("<img" in html for html in drawn)


def test_a_front_end_that_cannot_replace_drawings_is_no_error(
    drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_bars, "display", lambda shown, display_id: None)
    with NotebookBars(Console(stderr=True)) as bars:
        number = bars.add_task("a task", total=2)
        bars.advance(number)
        assert repr(bars).startswith("a task: 1 of 2")
    assert not drawn


def test_outside_of_a_notebook_there_are_lines(capfd: pytest.CaptureFixture[str]) -> None:
    uebench.run("none", "standard", DATA, arch="resnet9[width=2]", epochs=1)
    assert "[1/1] none x standard" in capfd.readouterr().err
    uebench.run("none", "standard", DATA, arch="resnet9[width=2]", epochs=1, quiet=True)
    uebench.run("none", "standard", DATA, arch="resnet9[width=3]", epochs=1, quiet=True)
    assert capfd.readouterr().err == ""
