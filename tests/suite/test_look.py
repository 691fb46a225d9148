"""What the command line shows of results and poisons, Python shows as well."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import uebench
from uebench.cli import main
from uebench.common.errors import UserError
from uebench.data import Dataset
from uebench.data.poison import PoisonError
from uebench.report import read_cells

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """A table in Python, and the folder with its store, `home`, and its results."""
    root = tmp_path_factory.mktemp("look")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root / "home"))
        options = {"arch": "resnet9[width=2]", "epochs": 2, "out": root / "results"}
        return uebench.run(["none", "lsp"], ["standard", "iss"], DATA, **options), root


@pytest.fixture
def table(
    computed: tuple[pd.DataFrame, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pd.DataFrame:
    """A table in Python; a copy of its folder is `results`."""
    frame, root = computed
    monkeypatch.setenv("UEBENCH_HOME", str(root / "home"))
    shutil.copytree(root / "results", tmp_path / "results")
    return frame


def printed(*words: str) -> str:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_leaderboard_is_that_of_the_command_line(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = str(tmp_path / "results")
    for source in (table, folder, Path(folder), [folder]):
        board = uebench.leaderboard(source)
        assert board.to_markdown() == printed("table", folder, "--format", "markdown")
        assert board.to_csv() == printed("table", folder, "--format", "csv")
    best = uebench.leaderboard(table, best=True)
    assert best.to_markdown() == printed("table", folder, "--format", "markdown", "--best")
    part = uebench.leaderboard(table[table["defense"] == "iss"])
    assert [d.name for d in part.boards[0].defenses] == ["iss"]


def test_a_leaderboard_takes_several_folders_and_several_settings(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    more = {"arch": "resnet9[width=2]", "out": tmp_path / "seed1"}
    uebench.run("lsp", "iss", DATA, epochs=2, seeds=[1], **more)
    both = uebench.leaderboard([tmp_path / "results", tmp_path / "seed1"])
    counts = both.to_frame().set_index(["attack", "defense"])["n"]
    assert counts.to_dict() == {
        ("none", "standard"): 1,
        ("none", "iss"): 1,
        ("lsp", "standard"): 1,
        ("lsp", "iss"): 2,
    }
    frames = pd.concat([table, read_cells(RESULTS / "cifar10")])
    names = [board.settings.dataset for board in uebench.leaderboard(frames).boards]
    assert names == [DATA, "cifar10"]


def test_compare_is_that_of_the_command_line() -> None:
    ours = uebench.compare(RESULTS / "cifar10")
    text = json.loads(printed("table", str(RESULTS / "cifar10"), "--compare", "--json"))
    rows = text["comparison"]["cells"]
    assert ours.to_frame()["difference"].tolist() == pytest.approx([r["difference"] for r in rows])


def test_plots_are_pictures_and_files(table: pd.DataFrame, tmp_path: Path) -> None:
    shown = uebench.plot(table)  # the curves, which the store has
    ((name, png),) = shown.items()
    assert name.startswith("curves-")
    assert png.startswith(b"\x89PNG")
    assert shown._repr_html_().count("<img") == 1
    assert repr(shown) == f"1 plot: {name}"
    assert [path.read_bytes() for path in shown.save(tmp_path / "saved")] == [png]
    again = uebench.plot(tmp_path / "results", "curves", out=tmp_path / "plots")
    assert again.keys() == shown.keys()
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} >= {".pdf", ".png"}
    assert uebench.plot(table, "confusion")
    with pytest.raises(UserError, match=r"no plot 'curve'; the kinds are curves, ratio"):
        uebench.plot(table, "curve")
    with pytest.raises(UserError, match="pictures of a fixed size; leave it out"):
        uebench.plot(table, "examples", width="column")


@pytest.mark.parametrize("out", [None, "plots"])
def test_a_format_of_plots_that_does_not_exist_is_refused(
    table: pd.DataFrame, tmp_path: Path, out: str | None
) -> None:
    folder = out and tmp_path / out
    with pytest.raises(UserError, match=r"formats must be some of pdf, png, svg, got bmp$"):
        uebench.plot(table, out=folder, formats=["png", "bmp"])
    assert not (tmp_path / "plots").exists()
    assert uebench.plot(table, out=folder, formats="svg")
    assert {path.suffix for path in tmp_path.glob("plots/*")} == ({".svg"} if out else set())


def test_the_page_is_that_of_the_run(table: pd.DataFrame, tmp_path: Path) -> None:
    page = tmp_path / "results" / "index.html"
    before = page.read_text()
    page.unlink()
    assert uebench.report(tmp_path / "results") == page
    assert page.read_text() == before
    assert uebench.report(table, tmp_path / "page").read_text().count("<table") > 1
    with pytest.raises(UserError, match="give out=FOLDER"):
        uebench.report(table)


def test_the_room_of_reports_is_still_a_module() -> None:
    from uebench import report
    from uebench.report import read_results

    assert report is uebench.report
    assert report.read_results is read_results
    assert callable(report)


def test_audit_takes_poisons_and_files(tiny: Dataset, tmp_path: Path) -> None:
    poison = uebench.craft("lsp", tiny)
    poison.save(tmp_path / "lsp.npz")
    for measured in (uebench.audit(poison), uebench.audit(tmp_path / "lsp.npz", DATA)):
        assert measured["linf_max"] == poison.meta["linf_max"]
        assert measured["as_recorded"] is True
        assert json.loads(json.dumps(measured))["usable"] is True
        assert re.search(r"^linf +mean", repr(measured), re.MULTILINE)
        assert "<th" in measured._repr_html_()
    words = ["audit", str(tmp_path / "lsp.npz"), "--dataset", DATA, "--json"]
    assert json.loads(printed(*words)) == uebench.audit(tmp_path / "lsp.npz", tiny)
    with pytest.raises(PoisonError, match="give the data set"):
        uebench.audit(tmp_path / "lsp.npz")


def test_list_methods_lists_what_can_be_run() -> None:
    every = uebench.list_methods()
    listed = json.loads(printed("list", "--json"))
    names = [row["name"] for kind in ("attacks", "defenses", "victims") for row in listed[kind]]
    assert every["name"].tolist() == names
    assert set(uebench.list_methods("defense")["kind"]) == {"defense"}
    for kind in ("attack", "defense", "victim"):
        assert uebench.list_methods(kind).equals(uebench.list_methods(f"{kind}s"))
    with pytest.raises(UserError, match="kind must be attacks, defenses, victims or left out"):
        uebench.list_methods("models")


def test_what_holds_no_results_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results are given"):
        uebench.leaderboard([])
    with pytest.raises(UserError, match="there are no cells"):
        uebench.leaderboard(table[:0])
    with pytest.raises(UserError):
        uebench.leaderboard(tmp_path / "nowhere")
    with pytest.raises(UserError, match="attack"):
        uebench.leaderboard(pd.DataFrame({"name": ["em"]}))
