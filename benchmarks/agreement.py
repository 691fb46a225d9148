"""Do two protocols rank attacks and defenses alike? Spearman's rank correlation of two results.

A cell is a poison (the same bytes in both) under a defense, its accuracy the mean over seeds. How
high the correlation can be is limited by seeds: where a folder has several, the script also prints
how two single seeds of it agree on the same cells; means of several agree better than that.

    python benchmarks/agreement.py results/cifar10-small-sprint results/cifar10-small-paper60
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import pandas as pd

from uebench.report import read_cells
from uebench.report.statistics import spearman

SHOWN = ["attack", "defense"]
CELL = [*SHOWN, "dataset", "arch", "ratio", "classes", "poison_sha256", "defense_options"]


def accuracies(folder: Path) -> pd.DataFrame:
    """Return accuracies in percent, a row a cell, a column a seed."""
    cells = read_cells(folder)
    cells = cells[cells["status"] == "ok"].fillna({"poison_sha256": "", "classes": ""})
    if cells.duplicated([*CELL, "seed"]).any():
        raise SystemExit(f"{folder} has a cell several times; give results of one protocol")
    return cells.assign(test_acc=100 * cells["test_acc"]).pivot(
        index=CELL, columns="seed", values="test_acc"
    )


def agreement(both: pd.DataFrame) -> str:
    """Return the rank correlation of two columns, and over how many cells."""
    found = spearman(list(both.itertuples(index=False, name=None)))
    return f"{found:.2f} over {len(both)} cells" if found == found else f"{len(both)} cells are few"


def main() -> None:
    """Print the two tables beside each other, and how well they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs=2, type=Path, metavar="RESULTS")
    one, other = parser.parse_args().folders
    tables = [accuracies(folder) for folder in (one, other)]
    both = pd.concat([table.mean(axis=1) for table in tables], axis=1, join="inner")
    both.columns = pd.Index([one.name, other.name])
    if both.empty:
        raise SystemExit(f"{one} and {other} share no cell: no poison of the same bytes")
    print(both.droplevel([name for name in CELL if name not in SHOWN]).round(1).to_string())
    print(f"\n{one} and {other}: {agreement(both)}")
    for defense, part in both.groupby(level="defense"):
        print(f"  under {defense}: {agreement(part)}")
    for folder, table in zip((one, other), tables, strict=True):
        shared = table.loc[both.index]
        for pair in combinations(table.columns, 2):
            told = agreement(shared[list(pair)].dropna())
            print(f"single seeds {pair[0]} and {pair[1]} of {folder}: {told}")


if __name__ == "__main__":
    main()
