"""The layout of a paper's table: which properties of a cell select its row and its column."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from ..common.errors import UserError
from ..common.spec import did_you_mean

AXES = ("dataset", "arch", "ratio", "classes", "attack", "defense", "victim", "epochs")
"""Axes of rows and columns, besides options of a method such as `attack.eps`."""

Axes = Annotated[
    list[str],
    BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
    Field(min_length=1, max_length=4),
]


class TableSpec(BaseModel):
    """The axes of a table's rows and columns, outermost first."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: str = ""
    """The table's number in the paper, such as 2; a comparison prefers that table's numbers."""
    rows: Axes = ["attack"]
    """Axes of the rows."""
    columns: Axes = ["defense"]
    """Axes of the columns."""
    clean: Literal["row", "column"] = "row"
    """Whether clean training is shown as a row among the attacks, or as a column before each
    defense's."""

    @field_validator("rows", "columns")
    @classmethod
    def _known_axes(cls, value: list[str]) -> list[str]:
        for axis in value:
            method, dot, option = axis.partition(".")
            if axis not in AXES and not (dot and option and method in ("attack", "defense")):
                raise UserError(
                    f"unknown axis {axis}{did_you_mean(axis, AXES)}; choose from {', '.join(AXES)} "
                    "or an option such as attack.eps"
                )
        return value

    @property
    def name(self) -> str:
        """The name in files and labels: table2, figure3, or table if there is no number."""
        number = "".join(letter for letter in self.number.lower() if letter.isalnum())
        return f"table{number}" if not number or number.isdecimal() else number
