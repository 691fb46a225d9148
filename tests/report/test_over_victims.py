"""Attacks by victim: what an attack is worth if nobody knows who uses the data."""

import pandas as pd
import pytest

from uebench.report import leaderboards
from uebench.report.cells import COLUMNS
from uebench.report.formats import to_markdown
from uebench.report.latex import to_latex
from uebench.report.over_victims import by_victim_layouts

TITLES = {"em": "EM", "simclr": "SimCLR", "supervised": "Supervised"}


def cells(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    common = {"dataset": "d", "arch": "a", "protocol": "quick", "ratio": 1.0, "seed": 0}
    known = dict.fromkeys(COLUMNS, None) | common | {"status": "ok", "n_test": 100}
    return pd.DataFrame(
        [
            known
            | {"victim": victim, "attack": attack, "defense": defense, "test_acc": accuracy}
            | {"epochs": 60 if victim else 12, "key": f"{victim}{attack}{defense}"}
            for victim, attack, defense, accuracy in rows
        ]
    )


def test_the_worst_case_is_the_highest_accuracy_over_the_victims() -> None:
    boards = leaderboards(
        cells(
            *(("", "none", "standard", 0.9), ("", "em", "standard", 0.2)),
            *(("simclr[crop=0.1]", "none", "standard", 0.7),),
            *(("simclr[crop=0.1]", "em", "standard", 0.6),),
        )
    )
    ((table, label),) = by_victim_layouts(boards, TITLES)
    assert [str(column) for column in table.columns] == [
        "Supervised",
        "SimCLR[crop=0.1]",
        "worst case over victims (for the attacker)",
    ]
    shown = {str(row.label): [str(cell) for cell in row.cells] for row in table.rows}
    assert shown == {"clean": ["90.0", "70.0", ""], "EM": ["20.0", "60.0", "60.0 (SimCLR)"]}
    assert table.note.endswith("Accuracy under standard.")
    assert label == "tab:uebench-victims-1"
    assert "worst case over victims" in to_markdown(boards, TITLES)
    assert "worst case over victims" in to_latex(boards, TITLES)


def test_defenses_count_as_the_data_users_choice_and_gaps_give_a_bound() -> None:
    boards = leaderboards(
        cells(
            *(("", "em", "standard", 0.2), ("", "em", "iss", 0.8), ("", "lsp", "iss", 0.5)),
            *(("moco", "em", "standard", 0.4), ("moco", "none", "standard", 0.5)),
        )
    )
    ((table, _),) = by_victim_layouts(boards, TITLES)
    shown = {str(row.label): [str(cell) for cell in row.cells] for row in table.rows}
    assert shown["EM"] == ["80.0", "40.0", "80.0 (Supervised)"]
    assert shown["lsp"] == ["50.0", "—", "≥ 50.0 (Supervised)"]
    assert shown["clean"] == ["—", "50.0", ""]
    assert "best defense of each victim" in table.note


@pytest.mark.parametrize("victims", [("", ""), ("moco", "moco")])
def test_one_victim_needs_no_such_table(victims: tuple[str, str]) -> None:
    rows = [(v, a, "standard", 0.5) for v, a in zip(victims, ("none", "em"), strict=True)]
    assert by_victim_layouts(leaderboards(cells(*rows))) == []
