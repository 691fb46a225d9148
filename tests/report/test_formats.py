"""What is printed: digits, words, marks, and names that try to break out of a table."""

import io
import itertools
import json
import re

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from uebench.report import read_cells, read_results, write_cells, write_page
from uebench.report.formats import (
    FRAME_COLUMNS,
    escape_markdown,
    leaderboard_texts,
    to_csv,
    to_json,
    to_markdown,
    write_leaderboards,
)
from uebench.report.tables import leaderboards
from uebench.report.tables import only_leaderboard as leaderboard
from uebench.report.terminal import to_rich


@pytest.fixture
def small(cells) -> pd.DataFrame:
    """Return two attacks and clean, two defenses, two seeds; one cell failed, one is missing."""
    accuracy = {
        ("none", "standard"): 0.9,
        ("none", "iss"): 0.8,
        ("em", "standard"): 0.2,
        ("em", "iss"): 0.7,
        ("rem", "standard"): 0.3,
    }
    rows = [
        {"attack": a, "defense": d, "seed": seed, "test_acc": mean + (seed - 0.5) / 50}
        for (a, d), mean in accuracy.items()
        for seed in range(2)
    ]
    rows += [{"attack": "rem", "defense": "iss", "status": "failed"}]
    rows += [{"attack": "lsp", "defense": "iss", "test_acc": 0.55}]
    return cells(*rows)


def test_markdown_word_for_word(small):
    assert to_markdown(leaderboard(small), {"em": "EM", "iss": "ISS"}) == (
        "**Test accuracy (%) on synthetic: attacks in rows, defenses in columns**\n"
        "\n"
        "| attack | standard | ISS | best defense (attacker's worst case) |\n"
        "| :-- | --: | --: | --: |\n"
        "| clean | **90.0** ± 1.4 | 80.0 ± 1.4 |  |\n"
        "| EM | 20.0 ± 1.4 | **70.0** ± 1.4 | 70.0 (ISS) |\n"
        "| rem | 30.0 ± 1.4 | failed | ≥ 30.0 (standard) |\n"
        "| lsp | — | 55.0 (n=1) | ≥ 55.0 (ISS) |\n"
        "| worst case over attacks | ≤ 20.0 (EM) | ≤ 55.0 (lsp) |  |\n"
        "\n"
        "synthetic, resnet18, protocol quick, 30 epochs, 2,000 training images, 500 test images, "
        "precision fp32. Accuracy after the last epoch, mean ± sample standard deviation over "
        "n = 2 runs unless a cell says otherwise. The test set alone leaves a single run up to "
        "± 4.3 (95%, Wilson). Bold (provisional until there are 3 runs of each): the best "
        "defense, and what lies within noise of it. ≤ and ≥: "
        "not every opponent was measured, so only a bound is known.\n"
    )


def test_a_single_run_has_no_spread_and_clean_alone_no_worst_case(cells):
    text = to_markdown(leaderboard(cells({"attack": "none", "test_acc": 0.94781})))
    assert "| clean | 94.8 |" in text
    assert "n = 1 run each" in text
    assert "worst" not in text


@pytest.mark.parametrize(("n", "told"), [(1, True), (2, True), (3, False)])
def test_bold_is_provisional_until_there_are_three_runs(cells, n, told):
    rows = [
        {"attack": "none", "defense": d, "test_acc": value, "seed": seed}
        for d, value in (("standard", 0.9), ("iss", 0.2))
        for seed in range(n)
    ]
    for text in leaderboard_texts(leaderboards(cells(*rows))).values():
        assert ("Bold (provisional until there are 3 runs of each)" in text) == (
            told and not text.startswith("dataset,")
        )


def test_opponents_that_tie_are_all_named_or_counted(cells):
    def worst_case(*accuracies: float) -> str:
        rows = [{"attack": "abcd"[i], "test_acc": value} for i, value in enumerate(accuracies)]
        return to_markdown(leaderboard(cells(*rows))).splitlines()[-3]

    assert "| 10.0 (a) |" in worst_case(0.1, 0.2)
    assert "| 10.0 (b, c) |" in worst_case(0.2, 0.1, 0.1004)
    assert "| 10.0 (3 tied) |" in worst_case(0.1, 0.1, 0.1)


UNLEARNED = "The clean model has not learned: the best accuracy, 12.0 %, is within noise of chance"


@pytest.fixture
def unlearned(cells) -> pd.DataFrame:
    """Return a clean model near chance, and an attack that poisons nothing."""
    return cells(
        {"attack": "none", "test_acc": 0.12, "chance": 0.1},
        {"attack": "lsp", "test_acc": 0.11, "chance": 0.1, "n_poisoned": 0},
    )


def test_warnings_stand_in_every_form_of_a_table(unlearned, tmp_path):
    boards = leaderboards(unlearned)
    texts = leaderboard_texts(boards)
    console = Console(width=100, file=io.StringIO())
    console.print(to_rich(boards))
    texts["terminal"] = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    write_cells(unlearned, tmp_path / "cells.csv")
    page = write_page(read_results(tmp_path)).read_text()
    texts["page"] = page.partition('<p class="warning of-last">')[2].partition("</main>")[0]
    del texts["leaderboard.csv"]
    for name, text in texts.items():
        plain = text.replace("\\%", "%")
        assert UNLEARNED in plain, name
        assert "No image is poisoned by lsp, so that its row is clean training." in plain, name
    assert texts["leaderboard.md"].count("**The clean model has not learned") == 1


def test_the_same_cells_and_titles_give_the_same_texts(small, tmp_path):
    write_leaderboards(small, tmp_path, {"em": "EM"})
    again = leaderboard_texts(leaderboards(read_cells(tmp_path)), {"em": "EM"})
    assert again == {name: (tmp_path / name).read_text() for name in again}


def test_the_note_mentions_the_best_epoch_and_partial_poisoning(cells):
    text = to_markdown(*leaderboards(cells({"ratio": 0.5, "classes": "truck"}), "test_acc_best"))
    assert "62.5" in text
    assert "poisoning ratio 0.5, poisoned classes truck" in text
    assert "of the best epoch, which was chosen on the test set" in text


def test_options_name_the_worst_case_only_where_they_must(cells):
    frame = cells(
        {"defense": "at", "defense_options": "eps=4/255", "test_acc": 0.6},
        {"defense": "at", "defense_options": "eps=8/255", "test_acc": 0.7},
    )
    assert "| 70.0 (at[eps=8/255]) |" in to_markdown(leaderboard(frame))
    assert "| 60.0 (at) |" in to_markdown(leaderboard(frame.iloc[:1]))


def test_odd_names_stay_in_their_markdown_cells(odd):
    text = to_markdown(leaderboard(odd))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    n_bars = {len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) for line in lines}
    assert n_bars == {8}
    assert len(lines) == 2 + 9 + 1
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("ueraser_lite", "ueraser_lite"),
        ("_a_ b_", r"\_a\_ b\_"),
        ("a|b", r"a\|b"),
        ("\\|", r"\\\|"),
        ("[x](http://y) <b>*`~", r"[x]\(http://y) \<b>\*\`\~"),
    ],
)
def test_escaped_markdown(text, escaped):
    assert escape_markdown(text) == escaped


def test_csv_is_tidy_and_read_back(small):
    frame = pd.read_csv(io.StringIO(to_csv(leaderboards(small))), keep_default_na=False)
    assert list(frame.columns) == FRAME_COLUMNS
    assert len(frame) == 4 * 2
    row = frame[(frame.attack == "em") & (frame.defense == "iss")].iloc[0]
    assert (float(row["mean"]), row["n"], row["is_best_defense"]) == (0.7, 2, True)
    assert (float(row["best_epoch_mean"]), float(row["train_seconds"])) == (0.625, 10)
    assert frame[frame.is_worst_attack][["attack", "defense"]].values.tolist() == [
        ["em", "standard"],
        ["lsp", "iss"],
    ]
    assert frame[frame.status == "missing"][["attack", "mean", "n"]].values.tolist() == [
        ["lsp", "", 0]
    ]


def test_csv_of_nothing_has_its_columns():
    assert to_csv([]) == ",".join(FRAME_COLUMNS) + "\n"


def test_json_is_strict_and_keeps_numbers(small):
    (board,) = json.loads(to_json(leaderboard(small)), parse_constant=pytest.fail)
    assert board["settings"]["n_train"] == 2000
    entry = next(e for e in board["entries"] if e["defense"]["name"] == "iss" and e["n_failed"])
    assert (entry["status"], entry["test_acc"]) == ("failed", {"mean": None, "sd": None, "n": 0})
    assert board["worst_case_over_attacks"][0]["by"] == {"name": "em", "options": ""}
    assert [best["value"] for best in board["best_defense"]] == [0.7, 0.3, 0.55]


def _printed(frame, width, encoding="utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, color_system=None).print(to_rich(leaderboards(frame)))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120, 30])
def test_the_terminal_table_fits_its_width(odd, width):
    text = _printed(odd, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "…" not in text  # nothing was cut
    if width >= 80:
        assert "[red]markup[/red]" in text  # not taken for markup
        assert "failed" in text


def test_all_columns_are_printed_somewhere(cells):
    frame = cells(*({"defense": f"defense_{k}", "test_acc": k / 100} for k in range(20)))
    text = _printed(frame, 80)
    assert all(re.search(rf"\bdefense_{k}\b", text) for k in range(20))
    assert all(re.search(rf"\b{k}\.0\b", text) for k in range(20))


def test_a_terminal_without_unicode_gets_ascii(small):
    text = _printed(small, 80, "ascii")
    assert "20.0 +- 1.4" in text
    assert "<= 20.0" in text
    assert " --" in text


def test_the_four_files_are_written(small, tmp_path):
    paths = write_leaderboards(small, tmp_path / "out", {"em": "EM"})
    names = ["cells.csv", "leaderboard.csv", "leaderboard.tex", "leaderboard.md"]
    assert [path.name for path in paths] == names
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    assert "EM" in paths[2].read_text(encoding="utf-8")


def test_cells_are_written_when_no_leaderboard_can_be_made(cells, tmp_path):
    with pytest.raises(ValueError, match="claim to be"):
        write_leaderboards(cells({"key": "a"}, {"key": "b"}), tmp_path)
    assert (tmp_path / "cells.csv").exists()


def test_no_cells_still_give_readable_files(cells, tmp_path):
    write_leaderboards(cells({}).iloc[:0], tmp_path)
    assert pd.read_csv(tmp_path / "leaderboard.csv").empty


@pytest.fixture
def default_matrix(cells) -> pd.DataFrame:
    """Return the cells of `uebench run`: eight attacks against three defenses."""
    attacks = ["none", "em", "lsp", "ar", "ops", "cuda", "pil", "random_class"]
    defenses = ["standard", "ueraser_lite", "iss"]
    return cells(
        *(
            {
                "attack": attack,
                "attack_options": "steps=10,train_steps=12345" if attack == "em" else "",
                "defense": defense,
                "test_acc": (i + 3 * j) / 40,
            }
            for i, attack in enumerate(attacks)
            for j, defense in enumerate(defenses)
        )
    )


def test_the_default_table_has_one_line_per_row_in_80_columns(default_matrix):
    titles = {"ueraser_lite": "UEraser-Lite", "random_class": "Random, class-wise"}
    file = io.StringIO()
    Console(file=file, width=80).print(to_rich(leaderboards(default_matrix), titles))
    lines = file.getvalue().splitlines()
    rules = [number for number, line in enumerate(lines) if set(line.strip()) == {"─"}]
    assert len(rules) == 5, "one table, so that no column is below it"
    assert max(map(cell_len, lines)) <= 80
    clean, poisons, worst = (lines[start + 1 : end] for start, end in itertools.pairwise(rules[1:]))
    assert (len(clean), len(poisons), len(worst)) == (1, 7, 2)
    assert poisons[0].split()[:2] == ["em", "[a]"]
    assert "[a] steps=10,train_steps=12345." in " ".join(lines)
    assert worst[1].split() == ["by", "the", "attack", "em", "em", "em"]


def test_text_without_bold_marks_what_it_explains(default_matrix):
    def printed(color: str | None) -> str:
        file = io.StringIO()
        terminal = color is not None
        console = Console(file=file, width=80, color_system=color, force_terminal=terminal)
        console.print(to_rich(leaderboards(default_matrix)))
        return " ".join(file.getvalue().split())

    plain, colored = printed(None), printed("standard")
    assert "*50.0" in plain or "*15.0" in plain
    assert "* (provisional until there are 3 runs of each): the best defense" in plain
    assert "Bold" not in plain
    assert "*" not in colored
    assert "Bold (provisional" in colored
