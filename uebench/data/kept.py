"""Data sets in the store, by fingerprint: where workers find them, mapped where they are large."""

from __future__ import annotations

from ..store.store import Store
from .dataset import Dataset
from .split import Split


def keep_dataset(store: Store, dataset: Dataset) -> None:
    """Put a data set into the store, where the workers find it."""
    if store.read("dataset", dataset.fingerprint) is None:
        tensors = {
            "train_images": dataset.train.images,
            "train_labels": dataset.train.labels,
            "test_images": dataset.test.images,
            "test_labels": dataset.test.labels,
        }
        record = {"name": dataset.name, "class_names": list(dataset.class_names)}
        store.write("dataset", dataset.fingerprint, record, tensors)


def stored_dataset(store: Store, name: str, fingerprint: str) -> Dataset | None:
    """Return a data set from the store, or None where it is missing or was spoiled."""
    found = store.read("dataset", fingerprint)
    if found is None:
        return None
    tensors, record = found
    names = tuple(record["class_names"])
    return Dataset(
        name,
        Split(tensors["train_images"], tensors["train_labels"], names),
        Split(tensors["test_images"], tensors["test_labels"], names),
        fingerprint,
    )
