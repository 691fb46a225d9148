"""Do two protocols give the same ranking? Prints Spearman's rank correlation of their results.

A cell is a poison (the same bytes in both results) under a defense; its accuracy is the mean over
seeds. The spread over seeds limits how high the correlation can be. If there are several seeds, the
script also prints how well two single seeds agree on the same cells; means of several seeds agree
better than that. Folders may hold several protocols; each is compared with each.

    python benchmarks/agreement.py results/cifar10-small-protocols
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


def accuracies(folder: Path) -> dict[str, pd.DataFrame]:
    """Return accuracies in percent by protocol: one row per cell and one column per seed."""
    cells = read_cells(folder)
    cells = cells[cells["status"] == "ok"].fillna({"poison_sha256": "", "classes": ""})
    tables = {}
    for (protocol, epochs), part in cells.groupby(["protocol", "epochs"], dropna=False):
        name = f"{folder.name}, {protocol} ({epochs} epochs)"
        if part.duplicated([*CELL, "seed"]).any():
            raise SystemExit(
                f"{name} has a cell more than once, with other options of its protocol"
            )
        percent = part.assign(test_acc=100 * part["test_acc"])
        tables[name] = percent.pivot(index=CELL, columns="seed", values="test_acc")
    return tables


def agreement(both: pd.DataFrame) -> str:
    """Return the rank correlation of two columns in words, with the number of cells."""
    correlation = spearman(list(both.itertuples(index=False, name=None)))
    if correlation != correlation:  # NaN: it is not defined for so few cells
        return f"{len(both)} cells are too few"
    return f"{correlation:.2f} over {len(both)} cells"


def compare(one: str, other: str, tables: dict[str, pd.DataFrame]) -> bool:
    """Print two tables and how well they agree; return whether they have cells in common."""
    pair = {name: tables[name] for name in (one, other)}
    both = pd.concat([table.mean(axis=1) for table in pair.values()], axis=1, join="inner")
    both.columns = pd.Index(list(pair))
    if both.empty:
        print(f"{one} and {other} share no cell: no poison has the same bytes in both\n")
        return False
    print(both.droplevel([name for name in CELL if name not in PRINTED]).round(1).to_string())
    print(f"\n{one} and {other}: {agreement(both)}")
    for defense, part in both.groupby(level="defense"):
        print(f"  under {defense}: {agreement(part)}")
    for name, table in pair.items():
        shared = table.loc[both.index]
        for seeds in combinations(table.columns, 2):
            words = agreement(shared[list(seeds)].dropna())
            print(f"single seeds {seeds[0]} and {seeds[1]} of {name}: {words}")
    print()
    return True


def main() -> None:
    """Compare the results of each protocol with those of each other one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="RESULTS")
    tables: dict[str, pd.DataFrame] = {}
    for folder in parser.parse_args().folders:
        tables |= accuracies(folder)
    if len(tables) < 2:
        raise SystemExit(f"there is only {', '.join(tables)}; give results of two protocols")
    shared = [compare(one, other, tables) for one, other in combinations(tables, 2)]
    if not any(shared):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
