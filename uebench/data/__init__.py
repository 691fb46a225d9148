"""Data sets: their two splits, the catalogue of those that have a name, and what loads them."""

from __future__ import annotations

from .catalog import DATASETS
from .dataset import Dataset, DatasetError, from_arrays
from .load import load_dataset
from .split import Split

__all__ = ["DATASETS", "Dataset", "DatasetError", "Split", "from_arrays", "load_dataset"]
