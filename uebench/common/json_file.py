"""Read JSON files that anybody may have written, above all `run.json`, and say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import UserError
from .text import one_line

RUN = "run.json"
"""The file in a results folder that describes the run."""
MOST_JSON_BYTES = 500 * 2**20
"""Largest file that is read; the results of a thousand models need a tenth of it."""


class AbsentFileError(UserError):
    """A file does not exist; the message says what is needed."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file: names and values.

    Raises:
        AbsentFileError: there is no such file.
        ValueError: it cannot be read, is too large, is not JSON, or holds something else.
    """
    check_size(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({one_line(str(error))[:100]}); run again with the same --out, or "
            "remove the file"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; run again with the same --out, or remove it")
    return content


def check_size(path: Path) -> None:
    """Check that a file exists and is not larger than results can be.

    Raises:
        AbsentFileError: there is no such file.
        ValueError: it is larger, or cannot be accessed.
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
    """Return the content of a folder's `run.json`, whose entries named `needed` must be objects.

    Raises:
        AbsentFileError: the folder has none.
        ValueError: the file was not written by a run, or was damaged.
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
