"""A labelled set of images, as attacks and defenses see it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..store.arrays import add_bytes, chunks, fits, gathered, taken, zeros
from .conversion import as_images, as_whole_numbers


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and labels on one device; images that are too many for it lie in host memory.

    What is larger than memory lies in a file that is mapped. `take`, `pixels` and `subset` bring
    images to the device wherever they lie, so methods ask these rather than `images`.

    Attributes:
        images: uint8 [n, c, h, w].
        labels: int64 [n], each in 0..n_classes-1.
        class_names: one per class, by label.

    Raises:
        ValueError: the images are not uint8 [n, c, h, w], or the labels not one class per image.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Convert arrays and lists to tensors, and refuse those with another meaning."""
        images, k = as_images(self.images), len(self.class_names)
        labels = as_whole_numbers(self.labels, len(images), "labels")
        # On a GPU lie labels that were checked on the CPU; looking at them again would make the
        # host wait in every step of an attack that takes parts of a split.
        if len(labels) and not labels.is_cuda:
            low, high = labels.min().item(), labels.max().item()
            if low < 0 or high >= k:
                raise ValueError(
                    f"labels hold {low if low < 0 else high}; with {k} classes they must lie in "
                    f"0..{k - 1}"
                )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        c, h, w = self.shape
        return f"Split: {len(self):,} images [{c}, {h}, {w}] of {self.n_classes} classes"

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
        """Where batches go, and labels lie."""
        return self.labels.device

    @cached_property
    def class_sizes(self) -> list[int]:
        """Number of images of each class."""
        return torch.bincount(self.labels.cpu(), minlength=self.n_classes).tolist()

    def take(self, index: Tensor | slice) -> UInt8[Tensor, "b c h w"]:
        """Return the 8-bit images at `index`, on the device."""
        return taken(self.images, index, self.device)

    def pixels(self, index: Tensor | slice | None = None) -> Float[Tensor, "b c h w"]:
        """Return images as float32 in [0, 1]; all of them where no index is given."""
        images = self.take(slice(None) if index is None else index)
        return images.float().div_(255)

    def subset(self, index: Int[Tensor, " m"]) -> Split:
        """Return the images at `index`, in that order, or those that a mask selects."""
        index = torch.as_tensor(index)
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        images = gathered(self.images, index, self.device)
        return replace(self, images=images, labels=self.labels[index])

    def with_images(self, images: UInt8[Tensor, "n c h w"]) -> Split:
        """Return the same labels with other images."""
        return replace(self, images=images)

    def changed(
        self, change: Callable[[UInt8[Tensor, "b c h w"]], UInt8[Tensor, "b c h w"]]
    ) -> Split:
        """Return the split with images changed a chunk at a time, each by itself."""
        out = zeros(self.images.shape, torch.uint8, self.images.device)
        for part in chunks(out):
            out[part] = change(self.take(part))
        return self.with_images(out)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on `device`; images that do not fit there stay where they are."""
        device = torch.device(device)
        images = self.images
        if fits(images.numel(), device) or device.type == "cpu":
            images = images.to(device)
        return replace(self, images=images, labels=self.labels.to(device))


def content_hash(data: Split) -> str:
    """Return the sha256 of a split's images and labels."""
    digest = hashlib.sha256()
    for values in (data.images, data.labels):
        add_bytes(digest, values)
    return digest.hexdigest()
