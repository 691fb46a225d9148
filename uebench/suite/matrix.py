"""A planned matrix, and the outcome of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..cells.cell import Cell
from ..cells.config import Config
from ..cells.failure import Failure
from ..cells.records import Records
from ..data import Dataset
from ..execute.base import Executor
from ..execute.local import Local
from ..report.detection import Detection
from ..store.store import Store


@dataclass(frozen=True, eq=False)
class Matrix:
    """A planned matrix: its cells and data sets, and where and how to compute them."""

    config: Config
    datasets: list[Dataset]
    cells: list[Cell]
    store: Store
    devices: list[str]
    jobs: int
    executor: Executor = field(default_factory=Local)
    time_limit_s: float | None = None
    """Time limit for one cell or one poison; by default none."""
    stop_after_s: float | None = None
    """Time limit for the whole run; cells that it does not reach are skipped. By default none."""
    deterministic: bool = False
    """Whether GPUs use deterministic kernels only, so that cells are reproducible bit for bit."""
    keep_models: bool = False
    """Whether the weights of target models are stored, and written into the results folder."""
    log: str | None = None
    """What curves are written for: `tensorboard`, or nothing."""
    reused: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Records from other results folders, by the cell's key, which the store lacks."""
    reuse: Sequence[Path] = ()
    """These results folders, which have pictures of their poisons."""

    @cached_property
    def records(self) -> Records:
        """The records of the cells, read once for all steps from planning to the page."""
        return Records(self.store, self.reused)


@dataclass(frozen=True, eq=False)
class RunOutcome:
    """The result of a run: the rows of cells.csv, and why cells failed, by key."""

    cells: pd.DataFrame
    failures: dict[str, Failure]
    seconds: float
    detection: Sequence[Detection] = ()
    """What detectors say about the poisons, if they were asked."""
