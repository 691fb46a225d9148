"""Names are completed as `uebench list` has them, without torch; help and hints."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from uebench.cli import main
from uebench.cli.completion import complete_list
from uebench.common.names import names
from uebench.suite.listing import catalog

KINDS = ["attacks", "defenses", "datasets", "models", "protocols", "configs"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_of_the_lists(kind: str) -> None:
    listed = [r["name"] for r in catalog([kind])[kind] if r.get("origin", "built-in") == "built-in"]
    assert sorted(listed) == sorted(names(kind))


def test_an_imported_name_is_completed(tmp_path: Path) -> None:
    (Path(os.environ["UEBENCH_HOME"]) / "v1/imported/mine.abc").mkdir(parents=True)
    assert names("attacks")[-1] == "imported:mine"
    assert names("nonsense") == []


def completed(words: str) -> list[str]:
    """Return what bash would offer for the last word, and see that torch was not loaded."""
    code = (
        "import sys\nfrom uebench.cli import main\n"
        "try:\n    main(prog_name='uebench')\n"
        "finally:\n    print('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
        "_UEBENCH_COMPLETE": "bash_complete",
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    *offered, loaded = result.stdout.split()
    assert loaded == "False"
    return [line.partition(",")[2] for line in offered]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("uebench ru", ["run"]),
        ("uebench run --attacks em,l", ["em,lsp"]),
        ("uebench run --dataset cifar100", ["cifar100"]),
        ("uebench run --protocol sp", ["sprint"]),
        ("uebench run qui", ["quick"]),
        ("uebench show defense ueraser_", ["ueraser_lite", "ueraser_max"]),
        ("uebench show ueraser_", ["ueraser_lite", "ueraser_max"]),
        ("uebench show p", ["protocol", "p3", "p4", "p5", "pil", "pue", "paper"]),
        ("uebench check adapt", ["adaptive_em"]),
        ("uebench craft ls", ["lsp"]),
    ],
)
def test_completions_offered_by_the_shell(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_a_list_names_each_once() -> None:
    offered = [item.value for item in complete_list("attacks")(None, None, "lsp,em,")]  # type: ignore[arg-type]
    assert "lsp,em,ar" in offered
    assert "lsp,em,lsp" not in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_UEBENCH_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.parametrize(
    ("typed", "meant"), [("rnu", "run"), ("crfat", "craft"), ("tabel", "table")]
)
def test_a_mistyped_verb_gets_the_nearest_one(typed: str, meant: str) -> None:
    result = CliRunner().invoke(main, [typed])
    assert result.exit_code == 2
    assert f"there is no verb '{typed}' (did you mean {meant}?)" in result.stderr
    assert "did you mean" not in CliRunner().invoke(main, ["xyzzy"]).stderr


def test_a_mistyped_verb_of_the_store_gets_the_nearest_one() -> None:
    result = CliRunner().invoke(main, ["store", "prun"])
    assert result.exit_code == 2
    assert "store has no verb 'prun' (did you mean prune?); the verbs are du, ls" in result.stderr


def test_every_verb_has_an_example_and_is_in_the_help() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for verb in main.commands:
        assert f"  {verb} " in text
        told = CliRunner().invoke(main, [verb, "--help"]).stdout
        assert f"\n  uebench {verb}" in told, "a line each"


def test_no_summary_of_a_verb_is_cut() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    summaries = [line for line in text.splitlines() if line.startswith("  ")]
    assert any(line.startswith("  new  ") for line in summaries)
    assert not any(line.endswith("...") for line in summaries)


def test_no_colours_off_a_terminal() -> None:
    for arguments in (["list", "attacks"], ["show", "attack", "em"], ["check", "none", "--quick"]):
        assert "\x1b" not in CliRunner().invoke(main, arguments).stdout


def test_json_of_a_run_and_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "--attacks none,lsp --defenses standard --arch resnet9[width=2] --epochs 1 --out made"
    data = "--dataset synthetic[n_train=40,n_test=20,n_classes=2,size=16] --device cpu"
    words = ["run", *flags.split(), *data.split(), "--json"]
    monkeypatch.setattr(sys, "argv", ["uebench", *words])
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    (board,) = json.loads(result.stdout)
    accuracy = 100 * board["entries"][1]["test_acc"]["mean"]
    assert f"LSP: {accuracy:.1f} % under Standard" in result.stderr
    assert "has not learned" in result.stderr
    once = shlex.join(["uebench", *words]).replace(" --epochs 1", "")
    assert f"next: {once} --epochs 2\n" in result.stderr
    table = CliRunner().invoke(main, ["table", "made", "--json"])
    assert json.loads(table.stdout) == [board]
