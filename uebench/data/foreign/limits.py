"""How much memory a foreign file may ask for: a little more than its data set could need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import Dataset
from ..poison import PoisonError

ROOM = 2
"""A file may hold the training set this many times: as images and as perturbations."""


@dataclass(frozen=True)
class Limits:
    """How large the files of a poison may be; checked before anything is allocated.

    Attributes:
        name: name of the data set, for messages.
        n: number of its training images.
        n_classes: number of its classes.
        shape: channels, height and width.
    """

    name: str
    n: int
    n_classes: int
    shape: tuple[int, int, int]

    @staticmethod
    def of(dataset: Dataset) -> Limits:
        """Return the limits for poisons of a data set."""
        return Limits(dataset.name, len(dataset.train), dataset.n_classes, dataset.shape)

    @property
    def values(self) -> int:
        """Largest count of numbers in one array."""
        return ROOM * max(self.n, self.n_classes) * math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Largest size of a file, packed and unpacked: every number as a float64, and 1 MiB."""
        return 8 * self.values + 2**20

    @property
    def members(self) -> int:
        """Largest number of files in a folder or an archive."""
        return 4 * self.n + 1000

    @property
    def picture_bytes(self) -> int:
        """Largest size of one image file in bytes: uncompressed 16-bit RGBA, and 64 KiB."""
        return 8 * math.prod(self.shape[1:]) + 2**16

    def check_bytes(self, n_bytes: int, who: str) -> None:
        """Raise PoisonError if a file, packed or unpacked, is larger than any poison."""
        if n_bytes > self.bytes:
            raise PoisonError(
                f"{who} holds {n_bytes:,} bytes; a poison of the {self.n} training images of "
                f"{self.name} needs at most {self.bytes:,}; save the poison alone, or give the "
                "data set that it was made from"
            )

    def check_shape(self, shape: tuple[int, ...], who: str) -> None:
        """Raise PoisonError if an array is larger than any poison."""
        if any(side < 0 for side in shape) or math.prod(shape) > self.values:
            raise PoisonError(
                f"{who} claims the shape {shown_shape(shape)}, too large for a poison of the "
                f"{self.n} training images of {self.name} ({shown_shape(self.shape)} each); give "
                "the data set that it was made from"
            )


def shown_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as text of a bounded length."""
    text = str([int(side) for side in shape[:8]])
    return text if len(text) <= 80 and len(shape) <= 8 else text[:76] + " ...]"
