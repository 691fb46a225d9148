"""A labelled set of images, as attacks and defenses see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels on one device.

    Attributes:
        images: uint8 [n, c, h, w].
        labels: int64 [n], each in 0..n_classes-1.
        class_names: one a class, by label.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """Number of classes, whether or not each has an image here."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.images.device

    @cached_property
    def class_sizes(self) -> list[int]:
        """Number of images of each class."""
        return torch.bincount(self.labels.cpu(), minlength=self.n_classes).tolist()

    def pixels(self, index: Tensor | slice | None = None) -> Float[Tensor, "b c h w"]:
        """Return images as float32 in [0, 1]; all of them where no index is given."""
        images = self.images if index is None else self.images[index]
        return images.float().div_(255)

    def subset(self, index: Int[Tensor, " m"]) -> Split:
        """Return the images at `index`, in that order."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def with_images(self, images: UInt8[Tensor, "n c h w"]) -> Split:
        """Return the same labels with other images."""
        return replace(self, images=images)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))
