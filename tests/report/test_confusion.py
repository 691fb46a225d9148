"""Confusion matrices of a thousand classes: stored in the size of the test set, drawn binned."""

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests.report.conftest import FINISHED
from uebench.report import read_results, write_cells, write_page
from uebench.report.confusion import MOST_NESTED, ConfusionMatrix
from uebench.report.confusion_page import confusion
from uebench.report.records import read_records, write_records

SPARSE = {"data": [3, 1, 4], "indices": [0, 1, 1], "indptr": [0, 2, 3]}


def counted(k: int, n_test: int, seed: int = 0) -> list[list[int]]:
    """Return the confusion matrix of a model that is right about 60 % of its test images."""
    rng = np.random.default_rng(seed)
    true = np.arange(n_test) % k
    predicted = np.where(rng.random(n_test) < 0.6, true, rng.integers(0, k, n_test))
    nested: list[list[int]] = (
        np.bincount(true * k + predicted, minlength=k * k).reshape(k, k).tolist()
    )
    return nested


def size_of(uri: str) -> tuple[int, int]:
    """Return width and height of a picture that is written into a page."""
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return Image.open(io.BytesIO(png)).size


def write_folder(folder: Path, n_cells: int, k: int, n_test: int) -> Path:
    """Write a results folder whose cells have k classes."""
    keys = [f"{i:064x}" for i in range(n_cells)]
    rows = [
        FINISHED | {"attack": f"a{i // 5}", "defense": f"d{i % 5}", "key": key, "n_test": n_test}
        for i, key in enumerate(keys)
    ]
    folder.mkdir()
    write_cells(pd.DataFrame(rows), folder / "cells.csv")
    curve = [{"epoch": epoch, "loss": 1 / epoch, "test_acc": 0.5} for epoch in range(1, 31)]
    records = {
        key: {"curve": curve, "confusion": counted(k, n_test, i)} for i, key in enumerate(keys)
    }
    write_records(folder / "records.json", records)
    return folder


@given(
    arrays.arrays(
        np.int64,
        st.integers(0, 6).map(lambda k: (k, k)),
        elements=st.one_of(st.just(0), st.integers(0, 2**31 - 1)),
    )
)
def test_both_stored_forms_are_read_back(matrix: np.ndarray[Any, Any]) -> None:
    nested = matrix.tolist()
    read = ConfusionMatrix.read(nested)
    assert read.dense().tolist() == nested
    assert read.stored() == nested, "a small matrix stays readable, as older versions wrote it"
    assert read.total == sum(map(sum, nested))
    assert read.correct == sum(row[i] for i, row in enumerate(nested))
    assert read.row_totals().tolist() == [sum(row) for row in nested]
    assert len(read) == len(nested)


def test_the_sparse_form_is_that_of_scipy() -> None:
    from scipy.sparse import csr_array

    nested = counted(MOST_NESTED + 1, 500)
    stored = ConfusionMatrix.read(nested).stored()
    assert isinstance(stored, dict)
    theirs = csr_array(np.array(nested))
    assert stored == {
        name: getattr(theirs, name).tolist() for name in ("data", "indices", "indptr")
    }
    assert ConfusionMatrix.read(json.loads(json.dumps(stored))).dense().tolist() == nested
    assert ConfusionMatrix.read(SPARSE).dense().tolist() == [[3, 1], [0, 4]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"indptr": [0, 2]}, "square"),
        ({"indptr": [0, 3, 2]}, "square"),
        ({"indptr": [1, 2, 3]}, "square"),
        ({"indptr": []}, "indptr"),
        ({"indices": [0, 2, 1]}, "square"),
        ({"indices": [1, 0, 1]}, "ascend"),
        ({"indices": [1, 1, 1]}, "ascend"),
        ({"data": [3, 0, 4]}, "square"),
        ({"data": [3, 1]}, "square"),
        ({"data": [3, 1, -4]}, "data.2"),
        ({"data": [3, 1, 2**70]}, "data.2"),
        ({"data": None}, "data"),
    ],
)
def test_a_sparse_matrix_that_contradicts_itself_is_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "records.json"
    records = {"ab": {"confusion": SPARSE | change}}
    path.write_text(json.dumps({"format": 1, "records": records}))
    with pytest.raises(ValueError, match=r"records\.json: ab\.confusion") as caught:
        read_records(path)
    assert reason in str(caught.value)


def test_a_record_grows_with_its_test_set_and_not_with_the_square_of_its_classes(
    tmp_path: Path,
) -> None:
    sizes = {}
    for k in (500, 1000):
        nested = counted(k, 10_000)
        path = tmp_path / f"{k}.json"
        write_records(path, {"ab": {"confusion": nested}})
        assert read_records(path)["ab"].confusion.dense().tolist() == nested
        sizes[k] = path.stat().st_size
    assert sizes[1000] < 10 * 10_000, "a few bytes per test image"
    assert sizes[1000] < 1.3 * sizes[500]


def test_many_classes_share_a_pixel() -> None:
    k = 1000
    matrix = np.zeros((k, k), dtype=int)
    matrix[np.arange(k), np.arange(k)] = 6
    matrix[np.arange(k), k - 1 - np.arange(k)] += 2
    shown = confusion(ConfusionMatrix.read(matrix.tolist()), [f"c{i}" for i in range(k)])
    assert not shown.rows
    assert size_of(shown.picture) == (100, 100)
    assert shown.group == 10
    assert shown.recalls[0] == "75"
    assert shown.pairs[0] == "c0 taken for c999: 2 of 8"
    hundred = confusion(ConfusionMatrix.read(counted(100, 1000)), [str(i) for i in range(100)])
    assert (size_of(hundred.picture), hundred.group) == ((100, 100), 1)
    odd = ConfusionMatrix.read(counted(101, 1000))
    assert odd.binned(2).shape == (51, 51)
    assert odd.binned(2).sum() == 1000
    assert odd.binned(2)[50, 50] == odd.dense()[100, 100]


def test_the_page_of_many_classes_stays_small(tmp_path: Path) -> None:
    results = read_results(write_folder(tmp_path / "results", 4, 1000, 5000))
    page = write_page(results)
    assert page.stat().st_size < 500_000
    assert "several neighbouring classes" in page.read_text()


@pytest.mark.slow
def test_the_page_of_fifty_cells_with_a_thousand_classes_takes_seconds(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "results", 50, 1000, 50_000)
    start = time.process_time()  # of this process alone, whatever else the machine does
    write_page(read_results(folder))
    assert time.process_time() - start < 5
