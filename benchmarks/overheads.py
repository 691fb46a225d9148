"""What a run costs besides computing: planning, a look at the agenda, and a run of known cells.

python benchmarks/overheads.py --cells 10000 --seeds 5

The last part computes a small matrix, then runs it again and counts how often the recipe of a cell
or poison is built and how often a record of the store is read. All of these are best close to the
number of cells and poisons: a recipe is built from pydantic models and hashed, and a read verifies
checksums, so both add up in a matrix of many thousand cells.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from uebench.cells.cell import Cell, PoisonRef, dataset_ref
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.data import load_dataset
from uebench.execute.agenda import Agenda
from uebench.execute.tasks import Task
from uebench.store.store import Store
from uebench.suite.run import execute, prepare, save

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"


def main() -> None:
    """Measure what the arguments ask for and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000, help="number of planned cells")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the known run's four pairs")
    arguments = parser.parse_args()
    time_planning(arguments.cells)
    count_known_run(arguments.seeds)


def time_planning(n_cells: int) -> None:
    """Plan cells that differ in their seeds, and time what the driver does at each tick."""
    dataset = load_dataset(DATA)
    fields = {"attacks": "none", "defenses": "standard", "seeds": list(range(n_cells))}
    start = time.perf_counter()
    cells = plan(make_config(fields), [(dataset, dataset_ref(dataset))], "cpu")
    print(f"planning {n_cells} cells: {time.perf_counter() - start:.3f} s")
    agenda = Agenda([Task("cell", cell.key, cell) for cell in cells])
    start = time.perf_counter()
    agenda.take(1)
    agenda.patience()
    print(f"a tick with {n_cells} waiting cells: {1e3 * (time.perf_counter() - start):.4f} ms")


def count_known_run(n_seeds: int) -> None:
    """Compute a matrix, run it again, and print how often recipes are built and records read."""
    config = make_config(
        {
            "attacks": "none,lsp",
            "defenses": "standard,iss",
            "dataset": DATA,
            "arch": "resnet9[width=2]",
            "protocol_options": {"epochs": 1},
            "seeds": list(range(n_seeds)),
        }
    )
    with tempfile.TemporaryDirectory(prefix="uebench-overheads-") as directory:
        store, out = Store(Path(directory) / "store"), Path(directory) / "out"
        out.mkdir()
        execute(prepare(config, "cpu", store=store))
        with counted_calls() as counts:
            start = time.perf_counter()
            matrix = prepare(config, "cpu", store=store)
            save(matrix, execute(matrix), out, ["uebench", "run"])
            seconds = time.perf_counter() - start
    print(f"{len(matrix.cells)} known cells again: {seconds:.3f} s")
    for name in ("cell recipes", "poison recipes", "cell reads", "poison reads"):
        print(f"{name}: {counts[name]}")


@contextlib.contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count inside how often recipes are built and entries of the store are read."""
    counts: Counter[str] = Counter()

    def counted(function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            counts[name(*args)] += 1
            return function(*args, **options)

        return call

    # a cached property calls its `func` once for each object
    cells, poisons = vars(Cell)["_recipe"], vars(PoisonRef)["_recipe"]
    with (
        patch.object(cells, "func", counted(cells.func, lambda _: "cell recipes")),
        patch.object(poisons, "func", counted(poisons.func, lambda _: "poison recipes")),
        patch.object(Store, "read", counted(Store.read, lambda _, kind, *rest: f"{kind} reads")),
    ):
        yield counts


if __name__ == "__main__":
    main()
