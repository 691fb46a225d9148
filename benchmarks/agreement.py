"""Do two protocols give the same ranking? Prints Spearman's rank correlation of two results.

A cell is a poison (the same bytes in both results) under a defense; its accuracy is the mean over
seeds. The spread over seeds limits how high the correlation can be. If a folder has several seeds,
the script also prints how well two single seeds agree on the same cells; means of several seeds
agree better than that.

    python benchmarks/agreement.py results/cifar10-small-sprint results/cifar10-small-paper60
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import pandas as pd

from uebench.report import read_cells
from uebench.report.statistics import spearman

PRINTED = ["attack", "defense"]
CELL = [*PRINTED, "dataset", "arch", "ratio", "classes", "poison_sha256", "defense_options"]


def accuracies(folder: Path) -> pd.DataFrame:
    """Return accuracies in percent, with one row per cell and one column per seed."""
    cells = read_cells(folder)
    cells = cells[cells["status"] == "ok"].fillna({"poison_sha256": "", "classes": ""})
    if cells.duplicated([*CELL, "seed"]).any():
        raise SystemExit(f"{folder} has a cell more than once; give results of one protocol")
    return cells.assign(test_acc=100 * cells["test_acc"]).pivot(
        index=CELL, columns="seed", values="test_acc"
    )


def agreement(both: pd.DataFrame) -> str:
    """Return the rank correlation of two columns in words, with the number of cells."""
    correlation = spearman(list(both.itertuples(index=False, name=None)))
    if correlation != correlation:  # NaN: it is not defined for so few cells
        return f"{len(both)} cells are too few"
    return f"{correlation:.2f} over {len(both)} cells"


def main() -> None:
    """Print the two tables next to each other, and how well they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs=2, type=Path, metavar="RESULTS")
    one, other = parser.parse_args().folders
    tables = [accuracies(folder) for folder in (one, other)]
    both = pd.concat([table.mean(axis=1) for table in tables], axis=1, join="inner")
    both.columns = pd.Index([one.name, other.name])
    if both.empty:
        raise SystemExit(f"{one} and {other} share no cell: no poison has the same bytes in both")
    print(both.droplevel([name for name in CELL if name not in PRINTED]).round(1).to_string())
    print(f"\n{one} and {other}: {agreement(both)}")
    for defense, part in both.groupby(level="defense"):
        print(f"  under {defense}: {agreement(part)}")
    for folder, table in zip((one, other), tables, strict=True):
        shared = table.loc[both.index]
        for pair in combinations(table.columns, 2):
            words = agreement(shared[list(pair)].dropna())
            print(f"single seeds {pair[0]} and {pair[1]} of {folder}: {words}")


if __name__ == "__main__":
    main()
