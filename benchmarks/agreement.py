"""Do two protocols rank attacks and defenses alike? Spearman's rank correlation of two results.

A cell is a poison (the same bytes in both) under a defense, its accuracy the mean over seeds. How
high the correlation can be is limited by seeds: where a folder has several, the script also prints
how two seeds of it agree.

    python benchmarks/agreement.py results/cifar10-small-sprint results/cifar10-small-paper60
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from uebench.report import read_cells

CELL = ["attack", "poison_sha256", "defense"]


def accuracies(folder: Path) -> pd.DataFrame:
    """Return accuracies in percent, a row a cell, a column a seed."""
    cells = read_cells(folder)
    cells = cells[cells["status"] == "ok"]
    named = [
        f"{name}[{options}]" if options else name
        for name, options in zip(cells["defense"], cells["defense_options"], strict=True)
    ]
    cells = cells.assign(defense=named, test_acc=100 * cells["test_acc"])
    return cells.pivot(index=CELL, columns="seed", values="test_acc")


def agreement(a: pd.Series, b: pd.Series) -> str:
    """Return the rank correlation over the cells that both have, and how many these are."""
    both = pd.concat([a, b], axis=1, join="inner").dropna()
    return f"{spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic:.2f} over {len(both)} cells"


def main() -> None:
    """Print the two tables beside each other, and how well they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs=2, type=Path, metavar="RESULTS")
    tables = {folder.name: accuracies(folder) for folder in parser.parse_args().folders}
    means = {name: table.mean(axis=1) for name, table in tables.items()}
    both = pd.concat(means, axis=1, join="inner")
    print(both.droplevel("poison_sha256").round(1).to_string())
    (one, other), (name, another) = means.values(), means
    print(f"\n{name} and {another}: {agreement(one, other)}")
    for defense in both.index.unique("defense"):
        parts = [mean.xs(defense, level="defense") for mean in (one, other)]
        print(f"  under {defense}: {agreement(*parts)}")
    for name, table in tables.items():
        for seed, second in combinations(table.columns, 2):
            print(f"seeds {seed} and {second} of {name}: {agreement(table[seed], table[second])}")


if __name__ == "__main__":
    main()
