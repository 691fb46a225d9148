"""What the store keeps of a cell: as small as its test set, whatever the number of classes."""

import torch

from tests.cells.test_cell import planned
from uebench.cells.compute import compute
from uebench.data.dataset import from_arrays, keep_dataset
from uebench.report.confusion import ConfusionMatrix
from uebench.store.store import Store


def test_a_stored_cell_of_many_classes_has_a_sparse_matrix(store: Store) -> None:
    k = 150
    images = torch.randint(0, 256, (2 * k, 8, 8, 3), dtype=torch.uint8).numpy()
    labels = torch.arange(2 * k).remainder(k).numpy()
    dataset = from_arrays("many", (images, labels), (images[:k], labels[:k]), None)
    keep_dataset(store, dataset)
    cell = planned(dataset)
    record = compute(cell, store, "cpu")
    entry = store.read("cell", cell.key)
    assert entry is not None
    assert set(entry[1]["confusion"]) == {"data", "indices", "indptr"}
    matrix = ConfusionMatrix.read(entry[1]["confusion"])
    assert (len(matrix), matrix.total) == (k, k)
    assert matrix.row_totals().tolist() == [1] * k
    assert matrix.correct / k == record["test_acc"]
