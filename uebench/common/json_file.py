"""JSON files that a stranger may have written, `run.json` above all: their object, or why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import UserError
from .text import one_line

RUN = "run.json"
"""What a run tells of itself, in its results folder."""
MOST_JSON_BYTES = 500 * 2**20
"""Largest file that is read; the results of a thousand models take a tenth of it."""


class AbsentFileError(UserError):
    """There is no such file: one sentence says what is needed."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the names and values that a JSON file holds.

    Raises:
        AbsentFileError: there is no such file.
        ValueError: it cannot be read, is too large, is not JSON, or holds something else.
    """
    check_size(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({one_line(str(error))[:100]}); run again with the same --out, or "
            "remove the file"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; run again with the same --out, or remove it")
    return found


def check_size(path: Path) -> None:
    """Check that a file exists and is no larger than results can be.

    Raises:
        AbsentFileError: there is no such file.
        ValueError: it is larger, or cannot be looked at.
    """
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise AbsentFileError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if size > MOST_JSON_BYTES:
        raise UserError(
            f"{path} has {size / 2**20:,.0f} MB, and no results of ours have more than "
            f"{MOST_JSON_BYTES / 2**20:,.0f}; is it the right file?"
        )


def read_run_json(folder: Path, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the `run.json` of a results folder, which has objects under the names needed.

    Raises:
        AbsentFileError: there is none.
        ValueError: it is not what a run writes.
    """
    path = folder / RUN
    try:
        content = read_object(path)
    except AbsentFileError:
        raise AbsentFileError(
            f"{folder} has no {RUN}; give the folder that `uebench run --out` wrote"
        ) from None
    lacking = [name for name in needed if not isinstance(content.get(name), dict)]
    if lacking:
        raise UserError(
            f"{path} has no {' or '.join(lacking)}: it was not written by `uebench run`, or was "
            "spoiled; run the matrix again"
        )
    return content
