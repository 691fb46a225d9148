"""Keys of stored cells and poisons, pinned: nobody's results may become unknown by a refactoring.

`pinned_keys.json` was written by the code before the package was divided into rooms. It covers
every attack and every defense of that time. A key changes on purpose only where a number changes,
and then the method's `version`, or one of `cells.cell`'s, is raised and the pin follows.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from uebench.cells.cell import Cell, DatasetRef
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.methods.registry import methods
from uebench.store.store import Store

PINNED: dict[str, Any] = json.loads(Path(__file__).with_name("pinned_keys.json").read_text())
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR10 = DatasetRef("cifar10", "5a" * 32, 10, (3, 32, 32), tuple(CLASSES.split()))


def keys(cells: list[Cell]) -> list[dict[str, str]]:
    return [
        {
            "cell": cell.describe(),
            "key": cell.key,
            "poison": cell.poison.key,
            "recipe": cell.recipe_key,
        }
        for cell in cells
    ]


@pytest.mark.parametrize("name", PINNED)
def test_keys_stay_as_they_were(name: str, store: Store) -> None:
    config = make_config({"dataset": "cifar10", **PINNED[name]["fields"]})
    assert keys(plan(config, [(CIFAR10, CIFAR10)], "cpu", store)) == PINNED[name]["cells"]


def test_every_method_of_that_time_is_pinned() -> None:
    pinned = {kind: set(PINNED[kind]["fields"][kind]) for kind in ("attacks", "defenses")}
    assert pinned["attacks"] <= set(methods("attack"))
    assert pinned["defenses"] <= set(methods("defense"))
    assert (len(pinned["attacks"]), len(pinned["defenses"])) == (7, 14)
