"""Plots as files: PDF and PNG, the same bytes again, and a sentence where there is no plot."""

from pathlib import Path

import pytest
from PIL import Image

from tests.report.story import write_story
from uebench.report import Results, read_results
from uebench.report.plots import draw, plain_label, slug


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One data set, two networks, one ratio more than one."""
    read = read_results(write_story(tmp_path_factory.mktemp("story")))
    kept = read.cells[read.cells["dataset"] == "two"].reset_index(drop=True)
    return Results(read.folder, kept, read.run, read.records, read.pictures, read.titles)


@pytest.mark.parametrize(
    ("kind", "stems"),
    [
        ("ratio", ["ratio-two-resnet8"]),
        ("budget", ["budget-linf-two-resnet8-ratio-0.5", "budget-linf-two-resnet8-ratio-1.0"]),
        ("confusion", ["confusion-two-resnet8-ratio-0.5", "confusion-two-resnet8-ratio-1.0"]),
    ],
)
def test_each_kind_is_a_pdf_and_a_png(
    kind: str, stems: list[str], results: Results, tmp_path: Path
) -> None:
    paths = draw(results, kind, tmp_path)
    assert [path.name for path in paths] == [f"{s}.{e}" for s in stems for e in ("pdf", "png")]
    for path in paths:
        if path.suffix == ".pdf":
            text = path.read_bytes()
            assert text.startswith(b"%PDF")
            assert b"Date" not in text
        else:
            with Image.open(path) as image:
                levels = image.convert("L").getextrema()
                assert levels == (0, 255), "something is drawn"
                assert not image.info.get("Software")


def test_the_same_results_make_the_same_files(results: Results, tmp_path: Path) -> None:
    first = draw(results, "repeats", tmp_path / "a")
    second = draw(results, "repeats", tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    best = draw(results, "repeats", tmp_path / "c", "test_acc_best")
    assert best[1].read_bytes() != first[1].read_bytes()


@pytest.mark.parametrize("kind", ["curves", "ratio", "budget", "repeats", "confusion", "cost"])
def test_a_plot_that_cannot_be_drawn_gives_a_reason_and_no_file(
    kind: str, results: Results, tmp_path: Path
) -> None:
    standard = results.cells["defense"] == "standard"
    alone = results.cells[standard & (results.cells["ratio"] == 1)].reset_index(drop=True)
    with pytest.raises(ValueError, match="run") as caught:
        draw(Results(results.folder, alone), kind, tmp_path / "out")
    assert str(results.folder) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_file_names_and_labels_of_plots_are_sanitised() -> None:
    assert slug("../a b[c=1/2]") == "a-b-c-1-2"
    assert plain_label("$x$ 漢") == r"\$x\$ ?"
