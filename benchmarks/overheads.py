"""What the driver costs besides computing: one look at an agenda with many waiting cells.

python benchmarks/overheads.py --cells 10000
"""

from __future__ import annotations

import argparse
import time

from uebench.cells.cell import dataset_ref
from uebench.cells.plan import make_config, plan
from uebench.data import load_dataset
from uebench.execute.agenda import Agenda
from uebench.execute.tasks import Task


def main() -> None:
    """Plan cells that differ in their seeds and time what the driver does at each tick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    n_cells = parser.parse_args().cells
    dataset = load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    fields = {"attacks": "none", "defenses": "standard", "seeds": list(range(n_cells))}
    start = time.perf_counter()
    cells = plan(make_config(fields), [(dataset, dataset_ref(dataset))], "cpu")
    print(f"planning {n_cells} cells: {time.perf_counter() - start:.3f} s")
    agenda = Agenda([Task("cell", cell.key, cell) for cell in cells])
    start = time.perf_counter()
    agenda.take(1)
    agenda.patience()
    print(f"a tick with {n_cells} waiting cells: {1e3 * (time.perf_counter() - start):.4f} ms")


if __name__ == "__main__":
    main()
