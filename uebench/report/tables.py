"""From cells to leaderboards: attacks x defenses, mean and sd over the runs, and worst cases.

Numbers stay numbers here and are formatted by `layout.py`. Cells that were trained under different
settings are never averaged: each setting gets a leaderboard of its own (`groups.py`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import pandas as pd

from ..common.errors import UserError
from .groups import CellRow, MethodSpec, Settings, by_pair, grouped, the_attack, the_defense
from .statistics import Stat, best_within_noise, mean_ranks

Metric = Literal["test_acc", "test_acc_best", "robust_acc", "gap"]
FEWEST_GROUPED = 9
"""The fewest attacks, or defenses, that a table groups by their families."""
METRICS: tuple[Metric, ...] = ("test_acc", "test_acc_best")
"""The metrics that every cell has, which the page shows."""


def value_of(run: CellRow, metric: Metric) -> float | None:
    """Return a cell's value in a metric, in [0, 1]; the gap is training minus test accuracy.

    It is None where it was not measured.
    """
    if metric != "gap":
        return run[metric]  # type: ignore[no-any-return]
    train, test = run["train_acc"], run["test_acc"]
    return None if train is None or test is None else train - test


@dataclass(frozen=True)
class BoardEntry:
    """All runs of one attack under one defense; the costs are means over the finished runs."""

    status: Literal["ok", "failed", "skipped", "missing"] = "missing"
    """`ok` if any run finished, else `failed` if any failed; `missing` without any run."""
    test_acc: Stat = field(default_factory=Stat)
    test_acc_best: Stat = field(default_factory=Stat)
    robust_acc: Stat = field(default_factory=Stat)
    gap: Stat = field(default_factory=Stat)
    n_failed: int = 0
    n_skipped: int = 0
    train_seconds: float = math.nan
    craft_seconds: float = math.nan
    peak_memory_mb: float = math.nan
    epochs: int | None = None
    """Epochs that its models were trained for, where they are known."""
    origins: tuple[str, ...] = ()
    """Where the records of finished runs were copied from, one per run that was not computed by the
    run that wrote the folder."""


@dataclass(frozen=True)
class Extreme:
    """The worst case of a method over its opponents, and the opponent that attains it."""

    value: float
    by: MethodSpec | None
    """None, with the value NaN, if nothing was measured."""
    n_measured: int
    n_possible: int
    tied: tuple[MethodSpec, ...] = ()
    """The opponents whose accuracy prints as the same percentage, `by` among them."""

    @property
    def complete(self) -> bool:
        """Whether every opponent was measured; if not, the true worst case may be worse."""
        return self.n_measured == self.n_possible


@dataclass(frozen=True)
class Leaderboard:
    """One table. The rows are attacks, clean training first; the columns are defenses."""

    settings: Settings
    metric: Metric
    attacks: tuple[MethodSpec, ...]
    defenses: tuple[MethodSpec, ...]
    entries: Mapping[tuple[MethodSpec, MethodSpec], BoardEntry]
    versions: tuple[str, ...] = ()
    """The versions of the suite that measured it, where they are known."""
    chance: float | None = None
    """The accuracy of a model that has learned nothing, where it is known."""
    without_effect: tuple[MethodSpec, ...] = ()
    """The attacks that changed no training image, so that their rows are clean training."""
    several_poisons: Mapping[MethodSpec, int] = field(default_factory=dict)
    """The attacks whose cells were trained on different poisons although recipe and seed are the
    same, with the largest number of poisons of one seed."""
    families: Mapping[MethodSpec, str] = field(default_factory=dict)
    """The families of the methods by which the table is grouped; only wide tables are."""

    @property
    def poisons(self) -> tuple[MethodSpec, ...]:
        """The attacks without the clean row."""
        return tuple(attack for attack in self.attacks if not attack.is_clean)

    @property
    def opponents(self) -> tuple[MethodSpec, ...]:
        """The defenses that were run against a poison, and not on clean data alone."""
        faced = {defense for attack, defense in self.entries if not attack.is_clean}
        return tuple(defense for defense in self.defenses if defense in faced)

    def entry(self, attack: MethodSpec, defense: MethodSpec) -> BoardEntry:
        """Return one entry, with status `missing` where no cell was run."""
        return self.entries.get((attack, defense), BoardEntry())

    def stat(self, attack: MethodSpec, defense: MethodSpec) -> Stat:
        """Return one entry's value in this table's metric."""
        stat: Stat = getattr(self.entry(attack, defense), self.metric)
        return stat

    def epochs(self, defense: MethodSpec) -> int | None:
        """Return the epochs that models are trained for under a defense; None if unknown."""
        known = (self.entry(attack, defense).epochs for attack in self.attacks)
        return next((epochs for epochs in known if epochs is not None), self.settings.epochs)

    def best(self, attack: MethodSpec) -> set[MethodSpec]:
        """Return the defenses that are best under `attack`, or within noise of the best.

        No gap is the best: a large one may come with the highest test accuracy.
        """
        if self.metric == "gap":
            return set()
        stats = {defense: self.stat(attack, defense) for defense in self.defenses}
        return best_within_noise(stats, self.settings.n_test)

    def ranks(self) -> dict[MethodSpec, float]:
        """Return the mean rank of each opponent over the poisons, 1 the best.

        Only poisons under which every opponent was measured count.
        """
        return mean_ranks(
            [{d: self.stat(attack, d).mean for d in self.opponents} for attack in self.poisons]
        )

    def worst_attack(self, defense: MethodSpec) -> Extreme:
        """Return the defender's worst case: the lowest accuracy of `defense` over the poisons."""
        return _extreme(min, {a: self.stat(a, defense).mean for a in self.poisons})

    def best_defense(self, attack: MethodSpec) -> Extreme:
        """Return the attacker's worst case: the highest accuracy under `attack`."""
        return _extreme(max, {d: self.stat(attack, d).mean for d in self.opponents})


Boards: TypeAlias = Leaderboard | Sequence[Leaderboard]
"""Every writer takes one leaderboard or several."""


def several(boards: Boards) -> list[Leaderboard]:
    """Return `boards` as a list."""
    return [boards] if isinstance(boards, Leaderboard) else list(boards)


def leaderboards(cells: pd.DataFrame, metric: Metric = "test_acc") -> list[Leaderboard]:
    """Return a leaderboard for each group of cells with the same settings, in plan order.

    A clean cell does not depend on the poisoning ratio and the poisoned classes, so clean cells
    are lent to the groups that differ in these alone and lack their own.

    Args:
        cells: As `read_cells` returns them, or any frame that `conform_cells` accepts.
        metric: The accuracy after the last epoch or of the best epoch, the accuracy under PGD
            after the last epoch, or the gap between training and test accuracy.

    Raises:
        ValueError: The cells or the metric are not accepted, no cell has the metric, or two
            different recipes claim to be the same run.
    """
    if metric not in get_args(Metric):
        raise UserError(f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}")
    check_measured(cells, metric)
    return [_leaderboard(settings, runs, metric) for settings, runs in grouped(cells).items()]


def metric_of(name: str | None, best: bool = False) -> Metric:
    """Return the metric that `--metric NAME` and `--best` ask for.

    Raises:
        UserError: there is no such metric, or two are asked for.
    """
    if best and name not in (None, "best"):
        raise UserError(f"--best and --metric {name} contradict each other; give one of them")
    names: dict[str, Metric] = {
        "last": "test_acc",
        "best": "test_acc_best",
        "robust": "robust_acc",
        "gap": "gap",
    }
    chosen = "best" if best else name or "last"
    if chosen not in names:
        raise UserError(f"the metric must be one of {', '.join(names)}, got {chosen!r}")
    return names[chosen]


def check_measured(cells: pd.DataFrame, metric: Metric) -> None:
    """Refuse cells that ran without the measurement of robust accuracy where it is asked for.

    Raises:
        UserError: no finished cell has it.
    """
    if metric == "robust_acc" and ("robust_acc" not in cells or cells["robust_acc"].isna().all()):
        raise UserError(
            "no cell has a robust accuracy, which is measured on request; run the matrix with "
            "--set protocol.robust=true"
        )


def only_leaderboard(cells: pd.DataFrame) -> Leaderboard:
    """Return the one leaderboard of `cells`.

    Raises:
        ValueError: As for `leaderboards`, or there are no cells, or of several settings.
    """
    boards = leaderboards(cells)
    if not boards:
        raise UserError("a leaderboard needs at least one cell, got none; run some first")
    if len(boards) > 1:
        values = {
            name: list(dict.fromkeys(str(getattr(board.settings, name)) for board in boards))
            for name in Settings.__match_args__
        }
        differ = "; ".join(f"{n}: {', '.join(v)}" for n, v in values.items() if len(v) > 1)
        raise UserError(
            f"these cells make {len(boards)} leaderboards, since they differ in {differ}; "
            "select the cells of one, or call leaderboards(), which returns them all"
        )
    return boards[0]


def _leaderboard(settings: Settings, runs: Sequence[CellRow], metric: Metric) -> Leaderboard:
    by_cell = by_pair(runs)
    attacks = list(dict.fromkeys(attack for attack, _ in by_cell))
    attacks.sort(key=lambda attack: not attack.is_clean)  # stable
    defenses = list(dict.fromkeys(defense for _, defense in by_cell))
    families: dict[MethodSpec, str] = {}
    families |= _families(attacks, {the_attack(r): r["attack_family"] for r in runs})
    families |= _families(defenses, {the_defense(r): r["defense_family"] for r in runs})
    for methods in (attacks, defenses):
        order = list(dict.fromkeys(families.get(method, "") for method in methods))
        methods.sort(key=lambda method: order.index(families.get(method, "")))
    return Leaderboard(
        settings=settings,
        metric=metric,
        attacks=tuple(attacks),
        defenses=tuple(defenses),
        entries={cell: _entry(its_runs) for cell, its_runs in by_cell.items()},
        versions=tuple(sorted({run["suite_version"] for run in runs} - {""})),
        chance=next((r["chance"] for r in runs if r["chance"] is not None), None),
        without_effect=tuple(a for a in attacks if not a.is_clean and _has_no_effect(a, runs)),
        several_poisons={a: n for a in attacks if (n := _n_poisons_per_seed(a, runs)) > 1},
        families=families,
    )


def _families(
    methods: Sequence[MethodSpec], family_of: Mapping[MethodSpec, str]
) -> dict[MethodSpec, str]:
    """Return the families by which a table groups its methods: none if there are few methods."""
    if len(methods) < FEWEST_GROUPED or len({family_of[method] for method in methods} - {""}) < 2:
        return {}
    return {method: family_of[method] for method in methods}


def _n_poisons_per_seed(attack: MethodSpec, runs: Sequence[CellRow]) -> int:
    """Return the largest number of poisons with different hashes that have one seed."""
    hashes: dict[object, set[str]] = {}
    for run in runs:
        if run["status"] == "ok" and the_attack(run) == attack and run["poison_sha256"]:
            hashes.setdefault(run["poison_seed"], set()).add(run["poison_sha256"])
    return max(map(len, hashes.values()), default=0)


def _has_no_effect(attack: MethodSpec, runs: Sequence[CellRow]) -> bool:
    counts = [r["n_poisoned"] for r in runs if r["status"] == "ok" and the_attack(r) == attack]
    return bool(counts) and not any(n is None or n for n in counts)


def _entry(runs: Sequence[CellRow]) -> BoardEntry:
    finished = [run for run in runs if run["status"] == "ok"]
    _check_one_recipe(finished)
    n_failed = sum(run["status"] == "failed" for run in runs)
    status: Literal["ok", "failed", "skipped"] = "failed" if n_failed else "skipped"

    def stat(column: str) -> Stat:
        return Stat.of([run[column] for run in finished if run[column] is not None])

    gaps = (value_of(run, "gap") for run in finished)
    return BoardEntry(
        status="ok" if finished else status,
        test_acc=stat("test_acc"),
        test_acc_best=stat("test_acc_best"),
        robust_acc=stat("robust_acc"),
        gap=Stat.of([gap for gap in gaps if gap is not None]),
        n_failed=n_failed,
        n_skipped=len(runs) - len(finished) - n_failed,
        train_seconds=stat("train_seconds").mean,
        craft_seconds=stat("craft_seconds").mean,
        peak_memory_mb=stat("peak_memory_mb").mean,
        epochs=next((run["epochs"] for run in finished or runs), None),
        origins=tuple(run["origin"] for run in finished if run["origin"]),
    )


def _check_one_recipe(runs: Sequence[CellRow]) -> None:
    """Refuse runs whose recipes differ or, where these are unknown, the suite's versions."""
    recipes = {run["recipe"] or f"version {run['suite_version']}" for run in runs} - {"version "}
    if len(recipes) > 1:
        seeds = ", ".join(str(run["seed"]) for run in runs)
        versions = ", ".join(sorted({run["suite_version"] or "unknown" for run in runs}))
        raise UserError(
            f"{the_attack(runs[0])} under {the_defense(runs[0])}: seeds {seeds} were made by "
            f"{len(recipes)} different recipes (uebench {versions}) and are not averaged; keep the "
            "rows of one version, or run them again"
        )


def _extreme(
    pick: Callable[[Iterable[float]], float], means: Mapping[MethodSpec, float]
) -> Extreme:
    measured = {method: mean for method, mean in means.items() if not math.isnan(mean)}
    if not measured:
        return Extreme(math.nan, None, 0, len(means))
    value = pick(measured.values())
    by = next(method for method, mean in measured.items() if mean == value)
    tied = tuple(method for method, mean in measured.items() if f"{mean:.3f}" == f"{value:.3f}")
    return Extreme(value, by, len(measured), len(means), tied)
