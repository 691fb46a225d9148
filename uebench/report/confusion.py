"""Confusion matrices: how they are stored, counted, and reduced to a size that can be drawn.

A record holds a matrix of up to `MOST_NESTED` classes as nested lists, which anybody can read. A
larger one is almost empty, since a test set has at most as many different mistakes as images, so it
is stored as the three lists of SciPy's `csr_array`: a thousand classes then take as much space as
the test set, not a million entries. `ConfusionMatrix.read` is the one reader of both forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..common.errors import UserError

MOST_NESTED = 100
"""Larger matrices are stored in the sparse form."""
_MOST_CLASSES = 100_000
"""As many as a data set may have; a record with more was not written by a run."""

Integers: TypeAlias = npt.NDArray[np.int64]
# The upper limit keeps every sum of counts within 64 bits.
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_NESTED = TypeAdapter(Annotated[list[list[_Count]], Field(max_length=_MOST_CLASSES)])


class _Sparse(BaseModel):
    """The lists of a compressed sparse row matrix, by the names that SciPy gives them."""

    model_config = ConfigDict(title="SparseMatrix", use_attribute_docstrings=True)

    data: list[_Count]
    """The entries that are not zero, row by row."""
    indices: list[_Count]
    """Their columns, ascending within each row."""
    indptr: Annotated[list[_Count], Field(min_length=1, max_length=_MOST_CLASSES + 1)]
    """Where each row begins in the other two lists, and at last their length."""


STORED_SCHEMAS = [_NESTED.json_schema(), _Sparse.model_json_schema()]
"""The JSON schemas of the two stored forms."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Numbers of test images by true and predicted class; `len` is the number of classes."""

    n_classes: int
    rows: Integers
    """The true class of each entry that is not zero, ascending."""
    columns: Integers
    """The predicted classes of these entries, ascending within each row."""
    counts: Integers
    """The entries themselves, each at least 1."""

    @staticmethod
    def read(value: Any) -> ConfusionMatrix:
        """Return a matrix from either of its stored forms.

        Raises:
            ValueError: it is neither of them; pydantic's error names the place.
        """
        if isinstance(value, ConfusionMatrix):
            return value
        if isinstance(value, Mapping):
            return _from_sparse(_Sparse.model_validate(value))
        nested = _NESTED.validate_python(value)
        if any(len(row) != len(nested) for row in nested):
            raise UserError("a confusion matrix must be square")
        matrix = np.array(nested, dtype=np.int64).reshape(len(nested), len(nested))
        rows, columns = np.nonzero(matrix)
        return ConfusionMatrix(len(nested), rows, columns, matrix[rows, columns])

    @property
    def chance(self) -> float | None:
        """The accuracy of predicting the largest class for every image; None without images."""
        return int(self.row_totals().max()) / self.total if self.total else None

    def stored(self) -> list[list[int]] | dict[str, list[int]]:
        """Return the matrix as a record holds it: nested lists, or sparse if it is large."""
        if self.n_classes <= MOST_NESTED:
            nested: list[list[int]] = self.dense().tolist()
            return nested
        starts = np.searchsorted(self.rows, np.arange(self.n_classes + 1))
        return {
            "data": self.counts.tolist(),
            "indices": self.columns.tolist(),
            "indptr": starts.tolist(),
        }

    def __len__(self) -> int:
        return self.n_classes

    @property
    def total(self) -> int:
        """The number of test images."""
        return int(self.counts.sum())

    @property
    def correct(self) -> int:
        """The number of test images that were classified correctly: the trace."""
        return int(self.counts[self.rows == self.columns].sum())

    def dense(self) -> Integers:
        """Return all entries [k, k], zeros included."""
        return self.binned(1)

    def binned(self, group: int) -> Integers:
        """Return the sums over blocks of `group` x `group` neighbouring classes."""
        k = -(-self.n_classes // group)
        sums = np.zeros((k, k), dtype=np.int64)
        np.add.at(sums, (self.rows // group, self.columns // group), self.counts)
        return sums

    def row_totals(self) -> Integers:
        """Return the number of test images of each true class."""
        totals = np.zeros(self.n_classes, dtype=np.int64)
        np.add.at(totals, self.rows, self.counts)
        return totals


def _from_sparse(lists: _Sparse) -> ConfusionMatrix:
    data, indices, indptr = (
        np.array(values, dtype=np.int64) for values in (lists.data, lists.indices, lists.indptr)
    )
    k = len(indptr) - 1
    lengths = np.diff(indptr)
    whole = indptr[0] == 0 and (lengths >= 0).all() and indptr[-1] == len(indices) == len(data)
    if not whole or (indices >= k).any() or (data == 0).any():
        raise UserError("data, indices and indptr must be those of a square sparse matrix")
    rows = np.repeat(np.arange(k), lengths)
    if (np.diff(rows * k + indices) <= 0).any():
        raise UserError("the columns of each row of a confusion matrix must ascend")
    return ConfusionMatrix(k, rows, indices, data)
