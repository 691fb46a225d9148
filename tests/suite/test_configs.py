"""The suite's configurations: each plans as the paper has it, and its smallest form ends."""

from pathlib import Path

import pytest
import torch

from uebench.cells.cell import Cell, dataset_ref
from uebench.cells.compute import compute
from uebench.cells.config import config_names, dataset_specs, make_config, parts
from uebench.cells.paper_table import paper_grid, stand_in
from uebench.cells.plan import plan
from uebench.cells.results import gather
from uebench.cli.matrix import FIELDS, matrix_fields
from uebench.data import Dataset, load_dataset
from uebench.data.dataset import keep_dataset
from uebench.models import build_network
from uebench.models.pretrained import FILE
from uebench.report.grid import grid_layout
from uebench.store.store import Store

PAPER = [name for name in config_names() if name.startswith(("table", "fig"))]
N_CELLS = {
    **{"table2": 29, "table3": 54, "table4": 38, "table5": 15, "table6": 12, "table7": 21},
    **{"table8": 18, "table9": 8, "table14": 38, "fig3": 19, "fig4": 18, "fig6": 8},
}
SMALLEST = {
    **{"em.rounds": 1, "em.steps": 1, "em.train_steps": 1, "adaptive_em.rounds": 1},
    **{"adaptive_em.steps": 1, "adaptive_em.train_steps": 1, "rem.train_steps": 1, "rem.steps": 1},
    **{"rem.transform_draws": 1, "rem.adv_steps": 1, "hypo.surrogate_epochs": 1, "hypo.steps": 1},
}


def flags(**given: object) -> dict[str, object]:
    names = ("dataset", "epochs", "craft_on", "sets", *FIELDS)
    return {**dict.fromkeys(names), "sets": (), **given}


def planned(name: str, data: Dataset | None = None, **given: object) -> list[Cell]:
    """Return the cells of a configuration, on stand-ins for its data sets, or on `data`."""
    config = make_config(matrix_fields(name, flags(**given)))
    if data is not None:
        return plan(config, [(data, dataset_ref(data))], "cpu")
    refs = [stand_in(spec) for spec in dataset_specs(config)]
    return plan(config, [(ref, ref) for ref in refs if ref is not None], "cpu")


def test_every_table_and_figure_has_a_configuration() -> None:
    assert set(PAPER) == set(N_CELLS)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of weights where Figure 4 looks for it; random ones, since only their hash is read."""
    model = build_network("resnet18[form=imagenet]", 1000, (3, 224, 224), 0)
    torch.save(model.state_dict(), tmp_path / FILE)
    monkeypatch.setenv("UEBENCH_DATA", str(tmp_path))


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", PAPER)
def test_each_plans_as_the_paper_has_it(name: str) -> None:
    cells = planned(name)
    assert len(cells) == N_CELLS[name]
    assert {cell.protocol.name for cell in cells} <= {"paper", "transfer"}
    assert len({cell.key for cell in cells}) == len(cells)
    config = make_config(matrix_fields(name, flags()))
    grid = paper_grid(config, cells, gather(cells, Store()), {})
    assert grid.n_missing == len(grid.spots) >= len(cells)


@pytest.fixture(scope="module")
def ten() -> Dataset:
    """30 training and 10 test images of 10 classes, 8x8."""
    return load_dataset("synthetic[n_train=30,n_test=10,n_classes=10,size=8]")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store for all configurations, whose poisons are shared as a user's are."""
    return Store(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize("name", PAPER)
def test_the_smallest_form_of_each_ends_and_is_shown(
    name: str, ten: Dataset, shared: Store
) -> None:
    given = flags(
        protocol="quick",
        dataset=(ten.name,),
        arch="resnet9[width=2]",
        epochs=1,
        sets=(*_smallest(name), "protocol.surrogate=resnet9[width=2]"),
    )
    config = make_config(matrix_fields(name, given))
    cells = plan(config, [(ten, dataset_ref(ten))], "cpu")
    keep_dataset(shared, ten)
    quick = [cell for cell in cells if cell.poison.attack.info.name != "ar"]  # its search is slow
    done = [quick[0], quick[-1], next(c for c in quick if c.defense.info.name.startswith("u"))]
    for cell in done:
        if not shared.has("cell", cell.key):
            compute(cell, shared, "cpu")
    frame = gather(cells, shared)
    grid = paper_grid(config, cells, frame, {})
    computed = sum(frame["status"] == "ok")
    assert computed >= len({cell.key for cell in done})
    assert len(grid.spots) - grid.n_missing >= computed
    shown = [cell.value for row in grid_layout(grid).rows for cell in row.cells]
    assert shown.count("—") == grid.n_missing
    assert len(shown) == len(grid.rows) * len(grid.columns)


def _smallest(name: str) -> list[str]:
    config = make_config(matrix_fields(name, flags(protocol="quick")))
    there = {spec.partition("[")[0] for part in parts(config) for spec in part.attacks}
    return [f"{key}={value}" for key, value in SMALLEST.items() if key.partition(".")[0] in there]


def test_quick_takes_smaller_attacks_and_its_own_network(ten: Dataset) -> None:
    cells = planned("table4", ten, protocol="quick", dataset=(ten.name,))
    assert len(cells) == 14, "the parts coincide on one data set"
    assert {cell.arch for cell in cells} == {"resnet8"}
    own = planned("table4", ten, protocol="quick", dataset=(ten.name,), sets=("em.steps=3",))
    assert {c.attack_options for c in own if c.poison.attack.info.name == "em"} == {
        "eps=8/255,steps=3"
    }


def test_flags_may_take_attacks_away_from_a_table(ten: Dataset) -> None:
    cells = planned("table2", ten, protocol="quick", dataset=(ten.name,), attacks="lsp")
    assert len(cells) == 7
    assert sum(cell.poison.is_clean for cell in cells) == 2


def test_a_users_own_file_may_have_parts(ten: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("attacks: lsp\ndefenses: iss\nmatrices: [{ratio: 0.5}, {seeds: [1, 2]}]\n")
    cells = planned(str(path), ten, dataset=(ten.name,))
    assert [(cell.ratio, cell.seed) for cell in cells] == [(0.5, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("name", "n_cells"), [("apbench_transfer", 80), ("depth", 36), ("victims", 14)]
)
def test_other_configurations_plan_in_full_and_in_small(name: str, n_cells: int) -> None:
    assert len(planned(name)) == n_cells
    quick = planned(name, protocol="quick")
    assert len(quick) == n_cells
    assert {cell.protocol.name for cell in quick} == {"quick"}


def test_the_transfer_table_has_the_networks_that_apbench_prints() -> None:
    cells = planned("apbench_transfer")
    config = make_config(matrix_fields("apbench_transfer", flags()))
    grid = paper_grid(config, cells, gather(cells, Store()), {})
    assert list(dict.fromkeys(str(row[0]) for row in grid.rows)) == [
        *("resnet50", "senet18", "mobilenet_v2", "densenet121"),
    ]


def test_a_table_may_have_victims_in_its_columns() -> None:
    cells = planned("victims", protocol="quick", attacks="none,lsp")
    config = make_config(matrix_fields("victims", flags(protocol="quick", attacks="none,lsp")))
    grid = paper_grid(config, cells, gather(cells, Store()), {})
    assert [str(column[0]) for column in grid.columns] == ["supervised", "simclr"]
    assert [str(row[0]) for row in grid.rows] == ["clean", "lsp"]
    assert len(grid.spots) == 4
