"""Names that strangers chose are harmless in every output."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.hostile.generators import NASTY
from uebench.common.text import one_line
from uebench.data import from_arrays
from uebench.execute.progress import ProgressDisplay
from uebench.execute.tasks import Event
from uebench.report import leaderboards, read_cells, to_latex, to_markdown, to_rich, write_cells
from uebench.report.latex import escape_latex

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TEXTS = [text for text in NASTY if text.strip()]


def cells_named(name: str) -> pd.DataFrame:
    """One finished cell whose every name is `name`."""
    row = {
        **dict.fromkeys(("dataset", "arch", "protocol", "attack", "defense"), name),
        **{"attack_options": name, "defense_options": name, "classes": name, "device": name},
        **{"ratio": 1.0, "seed": 0, "status": "ok", "test_acc": 0.5, "test_acc_best": 0.5},
        **{"best_epoch": 1, "train_acc": 0.5, "n_train": 8, "n_test": 4, "craft_seconds": 0},
        **{"train_seconds": 1, "peak_memory_mb": 1, "precision": "fp32", "key": name},
        **{"poison_sha256": name, "error": name},
    }
    return pd.DataFrame([row])


@pytest.mark.parametrize("name", TEXTS, ids=range(len(TEXTS)))
def test_a_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path
    if not one_line(name):
        pytest.skip("nothing is left of it, which is refused as an empty name")
    write_cells(cells_named(name), folder / "cells.csv")
    boards = leaderboards(read_cells(folder))
    latex, markdown = to_latex(boards), to_markdown(boards)
    stream = io.StringIO()
    Console(file=stream, width=160).print(to_rich(boards, {name: name}))
    for text in (latex, markdown, stream.getvalue(), (folder / "cells.csv").read_text()):
        assert not CONTROL.search(text), repr(CONTROL.search(text))
    assert "\\input{" not in latex
    assert "\\write18" not in latex
    assert "<script" not in re.sub(r"\\<", "", markdown)
    assert not re.search(r"(?<!\\)<img", markdown)
    assert not re.search(r"\]\((javascript|http)", markdown)
    header = next(line for line in markdown.splitlines() if line.startswith("|"))
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", header))


@pytest.mark.parametrize("name", TEXTS, ids=range(len(TEXTS)))
def test_latex_commands_are_spelled_out(name: str) -> None:
    text = escape_latex(name)
    commands = set(re.findall(r"\\([A-Za-z]+)", text))
    assert commands <= {
        *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater"),
        *("textbar", "symbol", "times", "dots", "pm", "le", "ge", "infty", "to", "ss"),
    }
    assert text.count("{") == text.count("}")


def test_class_names_are_printable() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for name in TEXTS:
        made = from_arrays("x", (images, np.arange(2)), (images, np.arange(2)), [name, "b"])
        assert made.class_names[0].isprintable()
        assert len(made.class_names[0]) <= 200


class Named:
    """A task whose description is a stranger's."""

    key = "k"

    def __init__(self, name: str) -> None:
        self.name = name

    def describe(self) -> str:
        """Return the name."""
        return self.name


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_names_as_they_are(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    for name in TEXTS:
        task: Any = Named(name[:300])
        with ProgressDisplay(1) as display:
            assert (display.progress is not None) == terminal
            display(Event("start", task, 0.0, name))
            display(Event("progress", task, 0.5, name))
            if display.progress is not None:
                display.progress.refresh()
            display(Event("failed", task, 1.0, name))
    told = capsys.readouterr().err
    assert "\x07" not in told
    assert "\u202e" not in told
    assert "\x1b]" not in told
    assert "[/]" in told, "no markup, but the name as it is"
    assert terminal or "\x1b" not in told
