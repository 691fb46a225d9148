"""`uebench table`: the store's cells in a paper's layout, in every format, and clear mistakes."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uebench.cli import main

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
MATRIX = ["--dataset", DATA, "--arch", "resnet9[width=2]", "--epochs", "1", "--device", "cpu"]
QUICK = [*MATRIX, "--protocol", "quick", "--attacks", "lsp"]
DEFENSES = ["--defenses", "standard,iss"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with a store and the results of Table 2's smallest matrix, and its stdout."""
    folder = tmp_path_factory.mktemp("ran")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(folder / "home"))
        patch.chdir(folder)
        command = ["run", "table2", *QUICK, *DEFENSES, "--seeds", "0,1", "--out", "made"]
        result = call(*command, "--compare", "--quiet")
    assert result.exit_code == 0, result.output
    return folder, result.stdout


@pytest.fixture
def home(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UEBENCH_HOME", str(ran[0] / "home"))
    monkeypatch.chdir(ran[0])
    return ran[0]


def test_a_run_prints_the_papers_table_and_what_was_published(ran: tuple[Path, str]) -> None:
    assert "Table 2: attacks and defenses" in ran[1]
    assert "(clean)" in ran[1]
    assert "Our results and published ones" in ran[1]
    assert "not comparable" in ran[1]
    written = {path.name for path in (ran[0] / "made").iterdir()}
    assert {"table.csv", "table.tex", "table.md", "leaderboard.csv", "cells.csv"} <= written


def test_table_prints_the_same_table_from_the_store(home: Path) -> None:
    one = call("table", "2", *QUICK, *DEFENSES, "--seeds", "0,1", "--format", "csv")
    assert one.exit_code == 0, one.output
    assert one.stdout == (home / "made/table.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(one.stdout)))
    assert [row["column"] for row in rows] == ["Standard (clean)", "Standard", "ISS"]
    assert {row["n"] for row in rows} == {"2"}
    assert {row["status"] for row in rows} == {"ok"}


def test_missing_cells_are_marked_as_missing(home: Path) -> None:
    result = call(
        "table", "table2", *QUICK, "--defenses", "standard,iss,cutout", "--format", "json"
    )
    cells = {cell["column"]: cell for cell in json.loads(result.stdout)["cells"]}
    assert cells["Cutout"]["status"] == "missing"
    assert cells["Cutout"]["mean"] is None
    assert cells["ISS"]["status"] == "ok"
    assert cells["ISS"]["low"] < cells["ISS"]["mean"] < cells["ISS"]["high"]
    other = call("table", "2", *QUICK, *DEFENSES, "--seeds", "7")
    assert "—" in other.stdout
    assert "`uebench run table2` with the same --attacks" in other.stderr


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_every_format_has_table_and_comparison(form: str, home: Path) -> None:
    result = call("table", "2", *QUICK, *DEFENSES, "--format", form, "--compare")
    assert result.exit_code == 0, result.output
    for word in ("ISS", "LSP", "iss", "apbench", "ueraser"):
        assert word in result.stdout.replace("{-}", "-")


def test_the_comparison_as_data(home: Path) -> None:
    command = ["table", "2", *QUICK, *DEFENSES, "--compare"]
    rows = list(csv.DictReader(io.StringIO(call(*command, "--format", "csv").stdout)))
    standard = [row for row in rows if row["column"] == "Standard"]
    sources = {"ueraser-2023", "apbench-2023", "iss-2023", "bridgepure-2024"}
    assert {row["source"] for row in standard} == sources
    command_s = [*command, "--second-hand", "--format", "csv"]
    more = {row["source"] for row in csv.DictReader(io.StringIO(call(*command_s).stdout))}
    assert more > sources
    assert "mi-ue-2026 [S]" in more
    for row in standard:
        gap = float(row["mean"]) - float(row["published_low"])
        assert float(row["difference"]) == pytest.approx(gap)
    found = json.loads(call(*command, "--format", "json").stdout)["comparison"]
    assert len(found["cells"]) == len(rows)
    assert "not comparable" in found["caveats"][0]


def test_the_comparison_names_the_rows_and_columns_of_its_table(home: Path) -> None:
    matrix = [*MATRIX, "--protocol", "quick", "--attacks", "none", "--defenses", "standard"]
    assert call("run", "table8", *matrix).exit_code == 0
    table = call("table", "8", *matrix, "--compare")
    told = table.stdout.partition("Our results and published ones")[2].split()
    assert told.index("defense") < told.index("attack") < told.index("ours")
    assert told.index("Standard") < told.index("clean")


def test_table_still_works_on_a_results_folder(home: Path) -> None:
    result = call("table", "made", "--compare", "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["leaderboards"][0]["mean_ranks"]
    assert found["comparison"]["cells"]
    plain = json.loads(call("table", "made", "--format", "json").stdout)
    assert plain == found["leaderboards"]


def test_a_table_without_its_data_is_laid_out(home: Path) -> None:
    result = call("table", "6", "--data-dir", ".", "--device", "cpu", "--format", "markdown")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("—") == 12
    assert "8/255" in result.stdout
    assert "24/255" in result.stdout
    assert "shown as missing: cifar10 is not in" in result.stderr


def test_a_table_of_missing_weights_is_laid_out_and_a_run_refuses(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_DATA", str(home / "none"))
    matrix = ["--dataset", DATA, "--device", "cpu", "--attacks", "lsp", "--defenses", "standard"]
    result = call("table", "fig4", *matrix, "--format", "json")
    assert result.exit_code == 0, result.output
    assert [cell["status"] for cell in json.loads(result.stdout)["cells"]] == ["missing"]
    assert result.stderr.count("shown as missing: resnet18_imagenet: ") == 1
    assert "resnet18-f37072fd.pth cannot be read" in result.stderr
    two = ["--arch", "resnet9[width=8],resnet18_imagenet[weights=a],resnet18_imagenet[weights=b]"]
    cells = json.loads(call("table", "7", *matrix, *two, "--format", "json").stdout)["cells"]
    assert len(cells) == 6, "clean and poisoned, and no file is taken for another"
    for dry in ([], ["--dry-run"]):
        refused = call("run", "fig4", *matrix, *dry)
        assert refused.exit_code == 2
        assert "put torchvision's ImageNet weights" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("table 22", "no cells at 22, and no table of that name"),
        ("table tabel2", "did you mean table2?"),
        ("table none/cells.csv", "no cells at none/cells.csv"),
        ("table made --epochs 3", "--epochs describes the matrix of a table"),
        ("table made --standalone", "add --format latex"),
        ("table made --caption x", "--caption is about LaTeX"),
        ("table made --label x", "--label is about LaTeX"),
        ("table made --published none.csv", "no such file"),
        ("table bad.csv", "no column dataset"),
        ("table empty.csv", "empty.csv has no rows, so there is no table"),
        ("table wrong.csv", "test_acc must lie in [0, 1], got '85.0'"),
        ("table mixed.csv", "are not averaged"),
        ("table 2 --protocol papr", "did you mean paper"),
    ],
)
def test_mistakes_get_one_sentence(arguments: str, told: str, home: Path) -> None:
    text = (home / "made/cells.csv").read_text()
    (home / "bad.csv").write_text("a,b\n1,2\n")
    header, *rows = list(csv.reader(io.StringIO(text)))
    accuracy, recipe, key = (header.index(name) for name in ("test_acc", "recipe", "key"))
    _write(home / "empty.csv", [header])
    _write(home / "wrong.csv", [header, [*rows[0][:accuracy], "85.0", *rows[0][accuracy + 1 :]]])
    changed = [list(row) for row in rows]
    changed[1][recipe] = changed[1][key] = "another"
    _write(home / "mixed.csv", [header, *changed])
    result = call(*arguments.split())
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.split())
    assert result.stdout == ""


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is missing")
@pytest.mark.parametrize("table", ["2", "14"])
def test_a_papers_table_compiles_as_a_standalone_document(
    table: str, home: Path, tmp_path: Path
) -> None:
    attacks = QUICK if table == "2" else [*MATRIX, "--protocol", "quick"]
    more = ["--format", "latex", "--standalone", "--label", "tab:x", "--compare"]
    text = call("table", table, *attacks, *more).stdout
    (tmp_path / "table.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path,
        capture_output=True,
        encoding="latin-1",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "table.log").read_text(encoding="latin-1")
    assert "Overfull" not in log
    assert "multiply defined" not in log
    if table == "14":
        assert r"\cmidrule(lr){2-3}" in text


@pytest.mark.usefixtures("home")
def test_an_axis_that_the_layout_lacks_gives_leaderboards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    two = ["--arch", "resnet9[width=2],resnet9[width=3]", "--defenses", "standard"]
    result = call("run", "table2", *QUICK, *two, "--out", "made", "--quiet")
    assert result.exit_code == 0, result.output
    assert "resnet9[width=3]" in result.stdout
    assert "2 different cells belong to row" in caplog.text
    assert (tmp_path / "made/index.html").is_file()
    assert not (tmp_path / "made/table.csv").exists()


@pytest.mark.usefixtures("home")
def test_a_table_for_a_column_of_selected_methods() -> None:
    made = ["run", *MATRIX, "--attacks", "none,lsp,lsp[patch=2]", *DEFENSES, "--out", "selected"]
    assert call(*made).exit_code == 0
    text = call(
        "table", "selected", "--no-worst-cases", "--format", "latex", "--width", "column"
    ).stdout
    assert r"LSP\textsuperscript{a}" in text
    assert "patch=2" in text.partition("bottomrule")[2]
    one = call("table", "selected", "--attacks", "lsp[patch=2]", "--transpose", "--no-worst-cases")
    rows = [line.split() for line in one.stdout.splitlines() if line.startswith(" ")]
    # the heading of the column has the attack's name on one line and its option on the next
    heads = [row[0] for row in rows if row[0][0] != "─"]
    assert heads == ["LSP", "defense", "Standard", "ISS"]
    both = call("table", "selected", "--attacks", "lsp", "--format", "csv").stdout
    assert both.count(",lsp,") == 4, "a name selects every form of the attack"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("table made --width column", "--width is about LaTeX; add --format latex"),
        ("table made --no-note", "--no-note is about LaTeX"),
        ("table made --format latex --width 1", "--width must be column (3.25 in)"),
        ("table made --attacks em", "no cell has the attack em; there are none, lsp"),
        ("table made --defenses is", "did you mean iss?"),
        ("table made --format latex --width 1.5", "fewer --attacks or --defenses"),
    ],
)
def test_a_table_that_cannot_be_arranged_gets_a_sentence(line: str, answer: str) -> None:
    result = call(*line.split())
    assert result.exit_code == 2
    assert answer in " ".join(result.stderr.split()), result.stderr
    assert "Traceback" not in result.stderr


def test_a_comparison_without_results_says_so(home: Path) -> None:
    result = call("table", "6", "--data-dir", ".", "--device", "cpu", "--compare")
    assert result.exit_code == 0, result.output
    assert "nothing is compared: no results yet" in result.stderr
