"""cells.csv: what is written is read back, and what is not accepted is named."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uebench.common.text import plain_text
from uebench.report.cells import COLUMNS, LONGEST_TEXT, conform_cells, read_cells, write_cells

CONTRACT = (
    "dataset arch protocol attack attack_options defense defense_options ratio classes seed "
    "status test_acc test_acc_best best_epoch train_acc n_train n_test craft_seconds "
    "train_seconds peak_memory_mb device precision key poison_sha256 error poison_seed epochs "
    "robust_acc robust_norm robust_radius suite_version torch_version recipe n_poisoned chance "
    "record_sha256 origin victim dfr_acc weight_noise_acc attack_family defense_family "
    "protocol_epochs"
)


def _value(name: str) -> st.SearchStrategy[Any]:
    column = COLUMNS[name]
    if name == "status":
        return st.sampled_from(["failed", "skipped"])
    if column.kind == "text":
        texts = st.text(min_size=0 if column.may_be_empty else 1).map(plain_text)
        return texts.filter(lambda text: bool(text) or column.may_be_empty)
    if column.kind == "integer":
        low = None if column.low < 0 else int(column.low)
        some: st.SearchStrategy[Any] = st.integers(-(2**63) if low is None else low, 2**63 - 1)
    else:
        high = None if column.high > 1 else 1
        some = st.floats(0, high, allow_nan=False, allow_infinity=False)
    return st.one_of(st.none(), some) if column.may_be_empty else some


ROWS = st.lists(st.fixed_dictionaries({name: _value(name) for name in COLUMNS}), max_size=4)


@given(rows=ROWS)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_read_back(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)  # floats hold 53 bits
    write_cells(frame, tmp_path / "cells.csv")
    back = read_cells(tmp_path)
    pd.testing.assert_frame_equal(back, conform_cells(frame), check_exact=True)
    for row, read in zip(rows, back.to_dict("records"), strict=True):
        for name, value in row.items():
            assert pd.isna(read[name]) if value is None else read[name] == value, name
    assert [path.name for path in tmp_path.iterdir()] == ["cells.csv"]


def test_the_columns_are_the_contract(cells, tmp_path):
    write_cells(cells({}), tmp_path / "deep" / "cells.csv")
    first = (tmp_path / "deep" / "cells.csv").read_text().splitlines()[0]
    assert first == CONTRACT.replace(" ", ",")


def test_an_empty_text_stays_empty_and_na_stays_a_text(cells, tmp_path):
    write_cells(cells({"attack_options": "", "classes": "NA", "error": None}), tmp_path / "c.csv")
    row = read_cells(tmp_path / "c.csv").iloc[0]
    assert (row.attack_options, row.classes, row.error) == ("", "NA", "")


def test_terminal_commands_and_control_codes_are_taken_out(cells, tmp_path):
    error = "\x1b[31mred\x1b[0m\r\n\x1b]8;;http://x\x07link\x9b2J\x00\x08\u202etab\t."
    write_cells(cells({"error": error}), tmp_path / "cells.csv")
    assert read_cells(tmp_path)["error"][0] == "red\nlinktab\t."


def test_a_formula_of_a_spreadsheet_is_kept_and_quoted(cells, tmp_path):
    formula = '=HYPERLINK("http://x","y")'
    write_cells(cells({"attack": formula, "classes": "-1"}), tmp_path / "cells.csv")
    row = read_cells(tmp_path).iloc[0]
    assert (row.attack, row.classes) == (formula, "-1")


def test_a_very_long_error_can_be_read_back(cells, tmp_path):
    write_cells(cells({"error": "begin" + "x" * 10**6 + "end"}), tmp_path / "cells.csv")
    error = read_cells(tmp_path)["error"][0]
    assert error.startswith("begin")
    assert error.endswith("end")
    assert len(error) < LONGEST_TEXT + 10


def test_the_appended_columns_may_be_absent_and_foreign_ones_are_kept(cells, tmp_path):
    frame = cells({}).drop(columns=["epochs", "poison_seed"]).assign(remark="mine")
    frame.to_csv(tmp_path / "cells.csv", index=False)
    row = read_cells(tmp_path).iloc[0]
    assert pd.isna(row.epochs)
    assert pd.isna(row.poison_seed)
    assert pd.isna(row.robust_acc)
    assert row.robust_norm == ""
    assert row.remark == "mine"


def test_a_byte_order_mark_and_empty_lines_are_accepted(cells, tmp_path):
    text = cells({}, {"seed": 1}).to_csv(index=False).replace("\n", "\n\n")
    (tmp_path / "cells.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert read_cells(tmp_path)["seed"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        ({"test_acc": 94.8}, r"test_acc must lie in \[0, 1\], got 94.8 \(row 1\); divide percent"),
        ({"test_acc_best": -0.1}, r"test_acc_best must lie in \[0, 1\], got -0.1"),
        ({"train_acc": "high"}, r"train_acc must be a finite number, got 'high' \(row 1\)"),
        ({"train_acc": float("inf")}, "train_acc must be a finite number, got inf"),
        ({"test_acc": None}, r"test_acc must lie .* where status is ok, but it is empty \(row 1\)"),
        ({"status": "done"}, r"status must be one of ok, failed, skipped, got 'done' \(row 1\)"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": None}, "seed must not be empty"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"n_train": -1}, "n_train must be at least 0, got -1"),
        ({"ratio": 50}, r"ratio must lie in \[0, 1\], got 50.0 .* poisoned share"),
        ({"attack": ""}, r"attack must not be empty \(row 1\); fill it in"),
    ],
)
def test_values_that_are_not_accepted_are_named(cells, tmp_path, difference, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_cells(cells({}, difference), tmp_path / "cells.csv")
    assert not list(tmp_path.iterdir())


def test_a_wrong_value_in_a_file_is_named_with_its_line(cells, tmp_path):
    frame = cells({"error": "two\nlines", "key": "a"}, {"seed": 1})
    write_cells(frame, tmp_path / "cells.csv")
    text = (tmp_path / "cells.csv").read_text()
    (tmp_path / "cells.csv").write_text(text[::-1].replace("5.0", "5.7", 1)[::-1])
    with pytest.raises(ValueError, match=r"got '7.5' \(.*cells.csv, line 4\)"):
        read_cells(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; its first line must name the columns"),
        ("dataset;arch\n", "no column dataset, arch, .* is separated by commas"),
        ("dataset,dataset\n", "no column arch"),
        (CONTRACT.replace(" ", ",") + ",seed\n", "column seed appears twice"),
        (
            CONTRACT.replace(" ", ",") + "\na,b\n",
            f"line 2: 2 values where .* names {len(CONTRACT.split())} columns",
        ),
        ('a,"b\n', "is not a comma-separated table in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_of_cells_is_named(tmp_path, text, sentence):
    (tmp_path / "cells.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_cells(tmp_path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "cells.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="is not a comma-separated table in UTF-8"):
        read_cells(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no cells at .*cells.csv; give"):
        read_cells(tmp_path)


def test_a_failed_write_leaves_the_old_file(cells, tmp_path, monkeypatch):
    write_cells(cells({}), tmp_path / "cells.csv")
    before = (tmp_path / "cells.csv").read_bytes()

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_cells(cells({"seed": 5}), tmp_path / "cells.csv")
    assert (tmp_path / "cells.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
