"""Attacks by victim: what an attack is worth if nobody knows who uses the data."""

from pathlib import Path

import pandas as pd
import pytest

from uebench.report import leaderboards, read_results
from uebench.report.cells import COLUMNS, write_cells
from uebench.report.charts import Chart, charts
from uebench.report.formats import to_markdown
from uebench.report.latex import to_latex
from uebench.report.over_victims import by_victim_layouts
from uebench.report.page import render
from uebench.report.plots import draw
from uebench.report.victim_figures import victims_figures

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
    assert table.note.startswith(boards[0].settings.dataset), "a name as it is, in lower case"
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


def test_the_plot_has_the_target_models_in_the_order_of_the_plan(tmp_path: Path) -> None:
    frame = pd.concat(
        cells(("", "none", "standard", 0.3 + i / 10), ("", "em", "standard", 0.2)).assign(
            arch=arch, key=[f"{arch}{j}" for j in range(2)]
        )
        for i, arch in enumerate(("linear", "mlp2[width=8]", "resnet18"))
    )
    other = cells(("simclr", "em", "standard", 0.6)).assign(arch="resnet18")
    write_cells(pd.concat((frame, other)), tmp_path / "cells.csv")
    results = read_results(tmp_path)
    (figure,) = victims_figures(results)
    assert figure.x_names == ("linear", "mlp2", "resnet18", "simclr")
    (panel,) = figure.panels
    lines = {line.label: [(p.x, p.y) for p in line.points] for line in panel.lines}
    assert lines["clean"] == [(0, 0.3), (1, 0.4), (2, 0.5)]
    assert lines["em"] == [(0, 0.2), (1, 0.2), (2, 0.2), (3, 0.6)]
    (chart,) = charts(figure)
    assert [tick.text for tick in chart.x_ticks] == list(figure.x_names)
    assert chart.x_ticks[0].at > Chart.left + 20, "room for half a name"
    assert Chart.right - chart.x_ticks[-1].at == pytest.approx(chart.x_ticks[0].at - Chart.left)
    write_cells(frame, tmp_path / "cells.csv")
    (figure,) = victims_figures(read_results(tmp_path))
    assert figure.x_names == ("linear", "mlp2", "resnet18"), "of one victim, networks alone"
    paths = draw(results, "victims", tmp_path)
    assert [path.name for path in paths] == ["victims-d.pdf", "victims-d.png"]


def test_one_network_is_no_plot(tmp_path: Path) -> None:
    write_cells(cells(("", "em", "standard", 0.2)), tmp_path / "cells.csv")
    with pytest.raises(ValueError, match="only one network and victim; run it with --arch linear"):
        draw(read_results(tmp_path), "victims", tmp_path)


def test_the_page_shows_the_worst_case_after_the_last_and_of_the_best_epoch(
    tmp_path: Path,
) -> None:
    both = cells(
        *(("", "em", "standard", 0.2), ("simclr", "em", "standard", 0.6)),
        *(("", "none", "standard", 0.9), ("simclr", "none", "standard", 0.7)),
    ).assign(test_acc_best=0.75)
    write_cells(both, tmp_path / "cells.csv")
    page = render(read_results(tmp_path, {"em": "EM", "simclr": "SimCLR"}))
    for metric, worst in (("last", "60.0 (SimCLR)"), ("best", "75.0 (Supervised)")):
        shown = page.partition(f'class="over-victims of-{metric}">')[2].partition("</section>")[0]
        assert "worst case over victims (for the attacker)" in shown
        assert f"<td>{worst}</td>" in shown
    write_cells(both[both["victim"] == ""], tmp_path / "cells.csv")
    assert "over-victims" not in render(read_results(tmp_path)), "one victim has no such table"
