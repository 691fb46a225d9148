"""Victims as plug-ins: who trains the target model, what is refused, and what enters a key."""

from pathlib import Path

import pytest
import torch

import uebench
from tests.cells.test_plan import cells
from tests.conftest import make_run
from uebench.cells.cell import SUPERVISED, Cell
from uebench.common.errors import MethodError
from uebench.data import Dataset
from uebench.execute.tasks import Task, from_plain, plain
from uebench.learn.protocol import MEASURES, PROTOCOLS
from uebench.methods.registry import build_defense, build_victim, find, load_file, methods
from uebench.methods.victim import Target, Trained
from uebench.report import leaderboards

CONSTANT = '''
"""A model that always answers with one class."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from uebench import Run, Split, Target, Trained, Victim, victim


class Constant(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, images):
        return self.logits.expand(len(images), -1)


@victim("{name}", title="One answer", source="a test")
class OneAnswer(Victim):
    """Always answers with one class."""

    label: Annotated[int, Field(ge=0, le=1)] = 0
    """The class."""

    def train(self, data: Split, target: Target, run: Run) -> Trained:
        run.note(clean_images=len(target.clean))
        logits = torch.eye(data.n_classes, device=run.device)[self.label]
        return target.judged(Constant(logits), data, run)
'''


def plug_in(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.py"
    file.write_text(CONSTANT.replace("{name}", name))
    load_file(file)


def test_a_victim_from_a_file_trains_and_is_judged(tmp_path: Path, tiny: Dataset) -> None:
    plug_in(tmp_path, "one_answer")
    clean = uebench.craft("none", tiny, device="cpu")
    record = uebench.train(clean, "cutout", tiny, victim="one_answer[label=1]", device="cpu")
    assert record["test_acc"] == (tiny.test.labels == 1).float().mean().item()
    assert record["confusion"][0][1] == int((tiny.test.labels == 0).sum())
    assert record["curve"] == [{"epoch": 12.0, "test_acc": record["test_acc"]}]
    assert record["clean_images"] == len(tiny.train)


def test_supervised_cells_keep_their_keys_and_others_have_their_own(
    tmp_path: Path, tiny: Dataset
) -> None:
    plug_in(tmp_path, "keyed")
    (plain_cell,) = cells(tiny, attacks="none", defenses="standard")
    both = cells(tiny, attacks="none", defenses="standard", victims="supervised,keyed[label=1]")
    assert both[0].key == plain_cell.key
    assert "victim" not in plain_cell.recipe()
    recipe = both[1].recipe()
    assert (recipe["victim"], recipe["victim_options"]) == ("keyed", {"label": 1})
    assert recipe["victim_source"], "the code of a plug-in is a part of the key"
    others = [
        *cells(tiny, attacks="none", defenses="standard", victims="keyed"),
        *cells(tiny, attacks="none", defenses="standard", victims="keyed", set={"keyed.label": 0}),
    ]
    assert len({cell.key for cell in (*both, *others)}) == 3
    assert both[1].describe() == "none x standard, keyed[label=1], seed 0"
    assert Cell.from_json(both[1].to_json()).key == both[1].key


def test_a_worker_refuses_a_victim_whose_code_was_changed(tmp_path: Path, tiny: Dataset) -> None:
    plug_in(tmp_path, "moved")
    (cell,) = cells(tiny, attacks="none", defenses="standard", victims="moved")
    data = plain(Task("cell", cell.key, cell))
    assert from_plain(data).cell.key == cell.key
    data["code"][2] = "another"
    with pytest.raises(MethodError, match="code of victim moved is not the code"):
        from_plain(data)


def test_victims_come_in_the_order_in_which_they_are_named(tiny: Dataset) -> None:
    fields = {"defenses": "standard,iss", "seeds": "0,1"}
    planned = cells(tiny, victims="simclr,supervised", **fields)
    assert [cell.victim.info.name for cell in planned][:: len(planned) // 2] == [
        "simclr",
        "supervised",
    ]
    assert len(planned) == 2 * len(cells(tiny, **fields))


@pytest.mark.parametrize("defense", ["at", "ueraser", "mixup", "op[cutmix=true]"])
def test_a_defense_in_the_loss_is_refused_by_name_under_a_contrastive_victim(
    defense: str, tiny: Dataset
) -> None:
    name = defense.partition("[")[0]
    with pytest.raises(ValueError, match=f"defense {name} acts in the loss .* victim simclr"):
        cells(tiny, defenses=f"standard,{defense}", victims="supervised,simclr")
    assert cells(tiny, defenses=f"standard,{defense}", victims="supervised")


def test_defenses_on_images_work_under_every_victim(tiny: Dataset) -> None:
    on_images = [name for name, cls in methods("defense").items() if not cls().acts_in_loss()]
    assert {"standard", "iss", "cutout", "blur", "coin", "rsk_ff", "dvae", "op"} <= set(on_images)
    named = ",".join(on_images)
    for victim in methods("victim").keys() - {"finetune", "linear_probe"}:
        assert cells(tiny, attacks="none", defenses=named, victims=victim)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"victims": "simcrl"}, "unknown victim 'simcrl' .did you mean simclr"),
        ({"victims": "simclr[epoch=3]"}, "no option epoch .did you mean epochs"),
        ({"victims": "simclr,simclr[crop=0.2]"}, "the victims simclr and .* are the same here"),
        ({"victims": "simclr", "arch": "linear"}, "linear has nothing there; choose another"),
        ({"victims": ""}, "victims"),
    ],
)
def test_bad_victims_are_refused_before_anything_runs(
    fields: dict[str, str], message: str, tiny: Dataset
) -> None:
    with pytest.raises((KeyError, ValueError), match=message):
        cells(tiny, attacks="none", defenses="standard", **fields)


def test_a_victim_that_breaks_while_it_is_planned_spoils_its_own_cells_alone(
    tmp_path: Path, tiny: Dataset
) -> None:
    file = tmp_path / "breaking.py"
    text = CONSTANT.replace("{name}", "breaking")
    file.write_text(text + "\n    def resolve(self, facts):\n        return {}['x']\n")
    load_file(file)
    fine, broken = cells(tiny, attacks="none", defenses="standard", victims="supervised,breaking")
    assert fine.fault is None
    assert broken.fault is not None
    assert "victim breaking failed in resolve: KeyError" in broken.fault.error
    assert "breaking.py, line" in broken.fault.error


def test_a_victim_that_breaks_in_training_is_named_with_its_line(
    tmp_path: Path, tiny: Dataset
) -> None:
    file = tmp_path / "crashing.py"
    file.write_text(
        CONSTANT.replace("{name}", "crashing").replace("logits = ", "1 / 0\n        logits = ")
    )
    load_file(file)
    clean = uebench.craft("none", tiny, device="cpu")
    with pytest.raises(MethodError, match=r"victim crashing failed in train: ZeroDivisionError"):
        uebench.train(clean, "standard", tiny, victim="crashing", device="cpu")


def test_tables_of_different_victims_are_never_mixed(tmp_path: Path, tiny: Dataset) -> None:
    plug_in(tmp_path, "shown")
    table = uebench.run(
        "none",
        "standard",
        "synthetic[n_train=40,n_test=20,n_classes=2,size=16]",
        victims="supervised,shown",
        plugin=[tmp_path / "shown.py"],
        epochs=1,
        jobs=1,
        device="cpu",
        out=tmp_path / "results",
    )
    assert table["victim"].tolist() == ["", "shown"]
    boards = leaderboards(table)
    assert [board.settings.victim for board in boards] == ["supervised", "shown"]
    written = (tmp_path / "results" / "leaderboard.csv").read_text().splitlines()
    assert written[0].endswith(",victim")
    assert [line.rpartition(",")[2] for line in written[1:]] == ["supervised", "shown"]


def test_the_record_follows_from_the_model_that_a_victim_returns(tiny: Dataset) -> None:
    class Bright(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mean = images.mean((1, 2, 3))
            return torch.stack((0.5 - mean, mean - 0.5), 1)

    standard = build_defense("standard").method
    target = Target("resnet8", PROTOCOLS["quick"], standard, tiny.test, tiny.train)
    rows = [{"epoch": 1, "test_acc": 1.0}, {"epoch": 2}]
    trained = target.judged(Bright(), tiny.train, make_run(tiny), rows, knn_acc=0.5)
    assert isinstance(trained, Trained)
    right = (Bright()(tiny.test.pixels()).argmax(1) == tiny.test.labels).float().mean().item()
    assert trained.record["test_acc"] == pytest.approx(right)
    assert (trained.record["test_acc_best"], trained.record["best_epoch"]) == (1.0, 1)
    assert trained.record["knn_acc"] == 0.5
    assert rows == [{"epoch": 1, "test_acc": 1.0}, {"epoch": 2}], "the caller's rows stay"


def test_the_default_victim_is_what_the_registry_builds() -> None:
    assert build_victim("supervised").method == SUPERVISED
    assert find("victim", "supervised") is type(SUPERVISED)


def test_more_measurements_are_asked_for_by_another_key_under_every_victim(tiny: Dataset) -> None:
    fields = {"attacks": "none", "defenses": "standard", "victims": "simclr"}
    keys = {
        cells(tiny, **fields, set={f"protocol.{name}": value})[0].key
        for name in MEASURES
        for value in (False, True)
    }
    assert len(keys) == 1 + len(MEASURES), "a known cell without the numbers is not the one"
