"""The notebook in docs/ runs from top to bottom, and shows what its text says."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def shown(cell: Any) -> str:
    """Return what a cell of code displays: HTML if it has any, else text."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        parts.append(data.get("text/html") or data.get("text/plain") or output.get("text", ""))
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.timeout(900)
# Jupyter's own packages warn about each other
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    stored = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    executed = nbformat.from_dict(stored)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(executed, timeout=800, resources=where).execute()
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    outputs = [shown(cell) for cell in cells]
    dataset, poison, audit, table, frame, plot, attack, board, latex = outputs
    for pictures in (dataset, poison, plot):
        assert '<img alt="' in pictures
        assert 'src="data:image/png;base64,' in pictures
    assert "kept by all images" in audit
    assert '<progress value="4" max="4">' in table, "the bar of four cells; the poison was known"
    assert not any("ipywidgets" in text for text in outputs)
    assert "Poison my_noise of synthetic" in attack
    for name in ("clean", "LSP", "My noise"):
        assert f">{name}</th>" in board
        assert name in latex
    texts = re.findall(r"<td>(.*?)</td>", frame)
    accuracy = {(texts[i], texts[i + 1]): float(texts[i + 3]) for i in range(0, len(texts), 4)}
    assert accuracy["lsp", "standard"] < 0.25 < accuracy["none", "standard"]
    assert accuracy["lsp", "iss"] > accuracy["lsp", "standard"]


def test_the_stored_notebook_holds_no_error_and_no_path_of_a_machine() -> None:
    text = (ROOT / "docs" / "notebook.ipynb").read_text()
    assert len(text) < 400_000, "its pictures are small"
    assert '"output_type": "error"' not in text
    assert "stderr" not in text
    assert not re.search(r"(/home/|/root/|/tmp/|/Users/)", text)
