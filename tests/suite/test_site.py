"""`uebench site`: results folders become a website, which is replaced as one."""

import html
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import uebench
import uebench.suite.site
from uebench.cells.cell import dataset_ref
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.cli import main
from uebench.cli.matrix import matrix_fields
from uebench.data import load_dataset
from uebench.report.cells import read_cells

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results folders that differ in a seed and in the protocol, and one of something else."""
    root = tmp_path_factory.mktemp("results")
    common = {"dataset": DATA, "arch": "resnet9[width=2]", "device": "cpu", "jobs": 1}
    options = {"epochs": 1, "flip": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root.with_name("home")))
        for name, fields in (
            ("first", {"attacks": "none,lsp[patch=4]", "defenses": "standard,iss", "ratio": 0.5}),
            ("second", {"attacks": "none,em[rounds=1]", "defenses": "standard", "seeds": [1]}),
        ):
            uebench.run(
                **fields, **common, protocol="quick", protocol_options=options, out=root / name
            )
            options = {"lr": 0.02, "epochs": 1}
    (root / "speed").mkdir()
    (root / "speed" / "gpu.json").write_text("{}")
    return root


def site(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["site", *map(str, arguments)])


@pytest.fixture(scope="module")
def built(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "site"
    result = site(results, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out / "index.html")
    assert "a page for each of 6 trained models" in result.stderr
    return out


def test_all_folders_are_shown_and_other_protocols_stay_apart(results: Path, built: Path) -> None:
    front = (built / "index.html").read_text()
    for name in ("first", "second"):
        assert str(results / name) in front
        for row in read_cells(results / name).to_dict("records"):
            page = (built / "cells" / f"{row['key'][:16]}.html").read_text()
            assert row["key"] in page
            assert row["record_sha256"] in page
            assert str(results / name) in page, "where it came from"
            assert row["attack"] == "none" or "<img src=" in page, "the picture of the poison"
    assert front.count('<article class="card">') == 2
    assert "speed" not in front


def test_every_known_method_has_a_page(built: Path) -> None:
    for name in ("attack-tap", "attack-em", "defense-at", "defense-ueraser", "victim-simclr"):
        assert (built / "methods" / f"{name}.html").is_file()
    assert "Departs from it" in (built / "methods" / "attack-em.html").read_text()
    assert "number of rounds is capped" in (built / "differences.html").read_text()


def test_the_command_on_the_page_of_a_cell_plans_this_cell(built: Path) -> None:
    planned = {path.stem: planned_key(path.read_text()) for path in (built / "cells").iterdir()}
    assert len(planned) == 6
    assert all(stem == key for stem, key in planned.items())


def planned_key(page: str) -> str:
    """Return the key of the one cell that the command on its page plans."""
    command = re.search(r'<pre class="command">(.*)</pre>', page)
    assert command is not None
    words = shlex.split(html.unescape(command[1]))
    assert words[:2] == ["uebench", "run"]
    context = main.commands["run"].make_context("run", words[2:])
    config = make_config(matrix_fields(None, context.params))
    dataset = load_dataset(DATA)
    (cell,) = plan(config, [(dataset, dataset_ref(dataset))], "cpu")
    return cell.key[:16]


@pytest.mark.parametrize(
    ("protocol", "fields", "typed"),
    [
        (
            {"protocol": "sprint", "protocol_options": {"alternate": False}},
            {"attacks": "lsp[patch=4,eps=1/7]", "ratio": "1/3", "craft_on": "subset"},
            [
                "protocol.alternate=false",
                "--craft-on subset",
                "0.3333333333333333",
                "0.142857142857",
            ],
        ),
        (
            {"protocol": "sprint"},
            {"defenses": "standard[times_epochs=2]", "epochs": 2},
            ["protocol.epochs=2", "standard[times_epochs=2]"],
        ),
        ({"protocol": "airbench", "protocol_options": {"label_smoothing": 0}}, {}, ["smoothing=0"]),
        ({"protocol": "quick"}, {"defenses": "sda_an[noise=false]"}, ["sda_an[noise=false]"]),
        (
            {"protocol": "quick", "protocol_options": {"surrogate": "resnet9[width=2]"}},
            {"attacks": "mix[em=0.25,lsp=0.5]", "set": {"em.rounds": 1, "lsp.patch": 4}},
            ["surrogate=resnet9[width=2]"],
        ),
    ],
)
def test_the_command_of_a_cell_repeats_what_recipes_leave_out_and_defenses_add(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: dict[str, Any],
    fields: dict[str, Any],
    typed: list[str],
) -> None:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "home"))
    common = {"dataset": DATA, "arch": "resnet9[width=2]", "device": "cpu", "jobs": 1, "epochs": 1}
    methods = {"attacks": "none", "defenses": "standard"}
    uebench.run(**common | protocol | methods | fields, out=tmp_path / "results")
    assert site(tmp_path / "results", "--out", tmp_path / "site").exit_code == 0
    (path,) = (tmp_path / "site" / "cells").iterdir()
    assert planned_key(path.read_text()) == path.stem
    assert all(text in html.unescape(path.read_text()) for text in typed)
    assert "crop_padding=0" not in path.read_text(), "the defense sets it by itself"


def test_a_site_is_replaced_as_one_and_what_else_lies_there_stays(
    results: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(built, tmp_path / "site"))
    (out / "docs").mkdir()
    (out / "docs" / "index.html").write_text("documentation")
    (out / "CNAME").write_text("uebench.example")
    assert site(results / "first", "--out", out).exit_code == 0
    kept = {row["key"][:16] for row in read_cells(results / "first").to_dict("records")}
    assert {path.stem for path in (out / "cells").iterdir()} == kept
    assert (out / "docs" / "index.html").read_text() == "documentation"
    assert (out / "CNAME").read_text() == "uebench.example"
    assert 'href="docs/index.html"' in (out / "index.html").read_text()
    assert 'href="../docs/index.html"' in next((out / "cells").iterdir()).read_text()

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def broken(_: object) -> object:
        yield "index.html", "half of it"
        raise OSError("the disk is full")

    monkeypatch.setattr(uebench.suite.site, "site_files", broken)
    assert site(results, "--out", out).exit_code == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_what_is_not_results_is_refused_by_name(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    lacking = Path(shutil.copytree(results / "first", tmp_path / "lacking"))
    (lacking / "records.json").unlink()
    doctored = Path(shutil.copytree(results / "first", tmp_path / "doctored"))
    text = (doctored / "cells.csv").read_text()
    (doctored / "cells.csv").write_text(text.replace("lsp", "ar"))
    for folder, words in (
        (results / "speed", "speed has no cells.csv"),
        (tmp_path / "nothing", "nothing has no cells.csv"),
        (lacking, "lacking/records.json is missing"),
        (doctored, "doctored/"),
    ):
        result = site(results, folder, "--out", out)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.stderr.split()).replace(
            "lacking/ records", "lacking/records"
        )
        assert not out.exists() or not list(out.iterdir()), "nothing was written"


def test_the_site_goes_into_no_results_and_over_no_other_website(
    results: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "index.html").write_text("my own page")
    for out, words in (
        (results, "one of the folders with the results"),
        (results / "first", "one of the folders with the results"),
        (mine, "that `uebench site` did not write"),
        (mine / "index.html", "is the name of a file"),
    ):
        before = sorted(path for path in out.rglob("*"))
        result = site(results, "--out", out)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.stderr.split())
        assert sorted(path for path in out.rglob("*")) == before
    assert (mine / "index.html").read_text() == "my own page"
