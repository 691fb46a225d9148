"""How a table of a paper is laid out: which part of a cell makes its row, and which its column."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from ..common.errors import UserError
from ..common.spec import did_you_mean

AXES = ("dataset", "arch", "ratio", "classes", "attack", "defense", "epochs")
"""What may make rows or columns; `attack.eps` and `defense.repeats` are options of a method."""

Axes = Annotated[
    list[str],
    BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
    Field(min_length=1, max_length=4),
]


class TableSpec(BaseModel):
    """Rows and columns of a table, outermost first."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: str = ""
    """What the paper calls it, such as 2; published numbers of that table are compared first."""
    rows: Axes = ["attack"]
    """What makes a row."""
    columns: Axes = ["defense"]
    """What makes a column."""
    clean: Literal["row", "column"] = "row"
    """Whether clean training is a row among the attacks, or a column before its defense's."""

    @field_validator("rows", "columns")
    @classmethod
    def _known_axes(cls, value: list[str]) -> list[str]:
        for axis in value:
            method, dot, option = axis.partition(".")
            if axis not in AXES and not (dot and option and method in ("attack", "defense")):
                raise UserError(
                    f"no axis {axis}{did_you_mean(axis, AXES)}; there are {', '.join(AXES)}, and "
                    "options such as attack.eps"
                )
        return value

    @property
    def name(self) -> str:
        """What files and labels call it: table2, figure3, or table where it has no number."""
        number = "".join(letter for letter in self.number.lower() if letter.isalnum())
        return f"table{number}" if not number or number.isdecimal() else number
