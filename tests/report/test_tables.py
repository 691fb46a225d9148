"""Leaderboards: statistics, missing cells, worst cases, and what is never averaged."""

import math
from pathlib import Path

import pandas as pd
import pytest

from uebench.report import Results, conform_cells
from uebench.report.charts import charts
from uebench.report.formats import to_frame
from uebench.report.groups import MethodSpec
from uebench.report.layout import layout
from uebench.report.series import cost_figures
from uebench.report.statistics import Stat
from uebench.report.tables import leaderboards
from uebench.report.tables import only_leaderboard as leaderboard

EM, REM, NONE = MethodSpec("em"), MethodSpec("rem"), MethodSpec("none")
STANDARD, ISS = MethodSpec("standard"), MethodSpec("iss")


def _grid(cells, accuracies, **same):
    """Return cells of {(attack, defense): accuracies of seeds 0, 1, ...}; None is a failed one."""
    return cells(
        *(
            {"attack": attack, "defense": defense, "seed": seed, "test_acc": accuracy}
            | ({"status": "failed", "test_acc": None} if accuracy is None else {})
            | same
            for (attack, defense), runs in accuracies.items()
            for seed, accuracy in enumerate(runs)
        )
    )


def test_mean_and_sample_standard_deviation_by_hand(cells):
    board = leaderboard(_grid(cells, {("em", "standard"): [0.1, 0.2, 0.6]}))
    stat = board.stat(EM, STANDARD)
    assert stat.mean == pytest.approx(0.3)
    assert stat.sd == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert stat.n == 3


def test_one_run_has_no_standard_deviation_and_none_no_mean():
    assert math.isnan(Stat.of([0.5]).sd)
    assert Stat.of([0.5]).mean == 0.5
    assert math.isnan(Stat.of([]).mean)


def test_the_metric_picks_the_best_epoch(cells):
    frame = cells({"test_acc": 0.2, "test_acc_best": 0.7})
    assert leaderboard(frame).stat(EM, STANDARD).mean == 0.2
    assert leaderboards(frame, "test_acc_best")[0].stat(EM, STANDARD).mean == 0.7
    with pytest.raises(ValueError, match="metric must be one of test_acc, test_acc_best, "):
        leaderboards(frame, "f1")  # type: ignore[arg-type]


def test_rows_and_columns_follow_the_plan_with_clean_first(cells):
    names = [("rem", "iss"), ("none", "iss"), ("em", "standard"), ("rem", "standard")]
    board = leaderboard(_grid(cells, {pair: [0.5] for pair in names}))
    assert board.attacks == (NONE, REM, EM)
    assert board.defenses == (ISS, STANDARD)
    assert board.poisons == (REM, EM)


def test_different_options_get_their_own_row(cells):
    board = leaderboard(cells({}, {"attack_options": "eps=16/255"}))
    assert board.attacks == (EM, MethodSpec("em", "eps=16/255"))


def test_a_defense_with_epochs_of_its_own_stands_in_the_same_table(cells):
    longer = {"defense_options": "times_epochs=2", "protocol_epochs": 30, "epochs": 60}
    board = leaderboard(cells({}, longer | {"train_seconds": 300}, {"defense": "iss"}))
    assert board.settings.epochs == 30
    assert board.epochs(MethodSpec("standard", "times_epochs=2")) == 60
    assert list(to_frame(board)["epochs"]) == [30, 60, 30]
    expected = (
        "Trained longer or shorter: standard[times_epochs=2] for 60 epochs, 5.0 min a model "
        "(standard: 10 s)."
    )
    assert expected in layout(board).note
    assert "Trained longer" not in layout(leaderboard(cells({}))).note


def test_missing_failed_and_skipped_cells_are_distinguished(cells):
    frame = pd.concat(
        [
            _grid(cells, {("em", "standard"): [0.5, None, 0.7], ("rem", "standard"): [None]}),
            cells({"defense": "iss", "status": "skipped"}),
        ]
    )
    board = leaderboard(frame)
    part = board.entry(EM, STANDARD)
    assert (part.status, part.test_acc.n, part.n_failed) == ("ok", 2, 1)
    assert board.entry(REM, STANDARD).status == "failed"
    assert board.entry(EM, ISS).status == "skipped"
    assert board.entry(REM, ISS).status == "missing"
    assert math.isnan(board.stat(REM, ISS).mean)


def test_worst_cases_by_hand(cells):
    frame = _grid(
        cells,
        {
            ("none", "standard"): [0.05],  # clean: no attack, so no worst case
            ("em", "standard"): [0.2],
            ("rem", "standard"): [0.3],
            ("em", "iss"): [0.8],
            ("rem", "iss"): [0.6],
        },
    )
    board = leaderboard(frame)
    worst = board.worst_attack(ISS)
    assert (worst.value, worst.by, worst.complete) == (0.6, REM, True)
    assert board.worst_attack(STANDARD).by == EM
    best = board.best_defense(EM)
    assert (best.value, best.by, best.complete) == (0.8, ISS, True)


def test_a_defense_run_only_on_clean_data_is_not_an_opponent(cells):
    frame = _grid(
        cells,
        {
            ("none", "at"): [0.7],
            ("none", "iss"): [0.9],
            ("em", "standard"): [0.2],
            ("em", "iss"): [0.8],
        },
    )
    board = leaderboard(frame)
    assert board.opponents == (ISS, STANDARD)
    assert board.best_defense(EM).complete
    assert board.ranks() == {ISS: 1.0, STANDARD: 2.0}
    failed = leaderboard(pd.concat([frame, _grid(cells, {("em", "at"): [None]})]))
    assert not failed.best_defense(EM).complete, "one that failed is an opponent"


def test_a_worst_case_over_an_unmeasured_opponent_is_incomplete(cells):
    board = leaderboard(_grid(cells, {("em", "standard"): [0.2], ("rem", "iss"): [None]}))
    worst = board.worst_attack(STANDARD)
    assert (worst.value, worst.n_measured, worst.n_possible) == (0.2, 1, 2)
    assert not worst.complete
    nothing = board.worst_attack(ISS)
    assert nothing.by is None
    assert math.isnan(nothing.value)


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "cifar10"},
        {"arch": "vgg16"},
        {"protocol": "paper"},
        {"ratio": 0.5},
        {"classes": "truck"},
        {"precision": "bf16"},
        {"epochs": 60},
        {"n_train": 4000},
        {"n_test": 100},
    ],
)
def test_other_settings_are_never_averaged(cells, other):
    frame = cells({"test_acc": 0.2}, {"test_acc": 0.8} | other)
    boards = leaderboards(frame)
    assert [board.stat(EM, STANDARD).mean for board in boards] == [0.2, 0.8]
    with pytest.raises(
        ValueError, match=f"make 2 leaderboards, since they differ in {next(iter(other))}"
    ):
        leaderboard(frame)


def test_a_failed_cell_joins_the_one_table_it_fits(cells):
    failed = {"defense": "iss", "status": "failed", "precision": ""}
    assert leaderboard(cells(failed, {})).entry(EM, ISS).status == "failed"
    assert len(leaderboards(cells({}, {"n_train": 9}, failed))) == 3


def test_clean_cells_appear_in_the_tables_of_other_ratios(cells):
    frame = cells(
        {"attack": "none", "test_acc": 0.9},
        {"attack": "none", "defense": "iss", "test_acc": 0.8},
        {"ratio": 0.5, "test_acc": 0.6},
        {"ratio": 0.2, "test_acc": 0.7},
        {"ratio": 0.2, "defense": "iss", "test_acc": 0.7},
        {"ratio": 0.2, "dataset": "cifar10", "test_acc": 0.1},
    )
    boards = {(b.settings.dataset, b.settings.ratio): b for b in leaderboards(frame)}
    assert boards["synthetic", 0.5].stat(NONE, STANDARD).mean == 0.9
    assert boards["synthetic", 0.5].defenses == (STANDARD,)
    assert boards["synthetic", 0.2].stat(NONE, ISS).mean == 0.8
    assert boards["cifar10", 0.2].attacks == (EM,)
    # nothing is left for a table of its own
    assert len(boards) == 3


def test_the_same_run_counts_once(cells):
    frame = cells({"test_acc": 0.2}, {"test_acc": 0.2}, {"test_acc": 0.4, "seed": 1})
    assert leaderboard(frame).stat(EM, STANDARD).n == 2


def test_a_run_that_was_repeated_after_a_failure_is_finished(cells):
    frame = cells({"key": "k", "status": "failed"}, {"key": "k", "test_acc": 0.25})
    entry = leaderboard(frame).entry(EM, STANDARD)
    assert (entry.status, entry.n_failed, entry.test_acc.mean) == ("ok", 0, 0.25)


@pytest.mark.parametrize("keys", [("a", "b"), ("", "")])
def test_two_recipes_for_one_run_are_refused(cells, keys):
    with pytest.raises(ValueError, match="2 cells claim to be em under standard, seed 0, poison"):
        leaderboard(cells({"key": keys[0]}, {"key": keys[1]}))
    leaderboard(cells({"key": keys[0]}, {"key": keys[1], "poison_seed": 1}))


def test_no_cells_make_no_leaderboard(cells):
    nothing = cells({}).iloc[:0]
    assert leaderboards(nothing) == []
    with pytest.raises(ValueError, match="needs at least one cell, got none"):
        leaderboard(nothing)


@pytest.fixture
def measured(cells):
    """Return two runs of one cell with training and robust accuracy, and a cell without them."""
    return cells(
        {"seed": 0, "test_acc": 0.6, "train_acc": 0.9, "robust_acc": 0.3},
        {"seed": 1, "test_acc": 0.7, "train_acc": 0.8, "robust_acc": 0.4},
        {"defense": "iss", "test_acc": 0.5, "train_acc": 0.4, "robust_acc": None},
    )


def test_robust_accuracy_and_the_gap_are_metrics_of_a_table(measured):
    em = MethodSpec("em")
    (robust,), (gap,) = leaderboards(measured, "robust_acc"), leaderboards(measured, "gap")
    assert robust.stat(em, MethodSpec("standard")).mean == pytest.approx(0.35)
    assert robust.stat(em, MethodSpec("iss")).n == 0
    assert gap.stat(em, MethodSpec("standard")).mean == pytest.approx(0.2)
    assert gap.stat(em, MethodSpec("iss")).mean == pytest.approx(-0.1), "test above training"
    assert gap.best(em) == set()
    drawn = layout(gap)
    assert drawn.caption.startswith("Training minus test accuracy (points)")
    assert [cell.value for cell in drawn.rows[0].cells] == ["20.0", "-10.0"]
    assert len(drawn.rows) == 1, "a gap has no worst case"
    assert layout(robust).caption.startswith("Robust accuracy (%)")
    assert "PGD-20" in layout(robust).note


def test_robust_accuracy_that_nobody_measured_is_refused(cells):
    with pytest.raises(ValueError, match=r"run the matrix with --set protocol\.robust=true"):
        leaderboards(cells({}), "robust_acc")
    with pytest.raises(ValueError, match="metric must be one of test_acc, test_acc_best"):
        leaderboards(cells({}), "loss")


def test_a_plot_of_gaps_reaches_below_zero(cells):
    rows = [
        {"defense": d, "key": f"{i:064x}", "test_acc": 0.5, "train_acc": t, "train_seconds": 9 + i}
        for i, (d, t) in enumerate((("standard", 0.95), ("iss", 0.42)))
    ]
    (figure,) = cost_figures(Results(Path("made"), conform_cells(cells(*rows))), "gap")
    assert figure.y_label == "training minus test accuracy (points)"
    assert figure.chance is None
    chart = charts(figure)[0]
    by_text = {tick.text: tick.at for tick in chart.y_ticks}
    (standard, iss) = (line.marks[0].y for line in chart.lines)
    assert standard < by_text["0"] < iss, "positions grow downwards"
