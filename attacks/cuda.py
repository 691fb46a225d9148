"""CUDA, convolution-based unlearnable data sets: each class is blurred with a filter of its own.

Source: Sadasivan et al., "CUDA: Convolution-based Unlearnable Datasets", CVPR 2023,
arXiv:2303.04278, and its authors' code.
Departs from the authors' code: images keep their size with any kernel, while their padding of 1
shrinks them from 5 px on; a black image stays black, where theirs becomes NaN; 8-bit images are
rounded, while theirs are truncated, which moves nearly every value by up to one level. With
`filters=authors` the filters are theirs, from their stream of random numbers, whatever the seed.
Cost: 50,000 CIFAR-10 images took 1.0 s of one core without the checks of the result (AMD EPYC,
torch 2.14, n = 1).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Attack, Auto, Budget, Facts, Option, Run, Split, UserError, attack, auto

from ._class_wise import check_classes

CONVOLVED = 2**18
"""Values of the images that are convolved together, so that they fit a core's cache."""
AUTHORS_SEED = 0
"""The seed of numpy's generator in the authors' code."""


@attack("cuda", title="CUDA", source="arXiv:2303.04278", family="surrogate-free")
class CUDA(Attack):
    """Convolves all images of a class with one random filter, and scales each to its maximum."""

    norm: Literal["none"] = "none"  # type: ignore[assignment]
    """Convolution has no budget: an image may change by any amount."""
    eps: ClassVar[None] = None  # type: ignore[misc]
    kernel: Annotated[int, Field(ge=2, le=255), Auto()] = auto()
    """Side of the filters in pixels; auto: 3, and 9 from 64 px on."""
    blur: Annotated[float, Field(gt=0, le=1), Auto()] = auto()
    """Upper end of the range from which the entries are drawn; auto: 0.3, and 0.06 from 64 px on.
    """
    center: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Value of one entry of each filter, at a random position."""
    filters: Annotated[Literal["seeded", "authors"], Option(variant=True)] = "seeded"
    """Where the filters come from: drawn with the poison's seed, or the stream of random numbers of
    the authors' code."""

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return no bound."""
        return Budget("none", None)

    def resolve(self, facts: Facts) -> CUDA:
        """Return the attack with kernel and blur filled in.

        Raises:
            UserError: there is one class, or the images are smaller than the kernel.
        """
        side = min(facts.shape[1:])
        large = side >= 64
        filled = self.fill_auto(kernel=9 if large else min(3, side), blur=0.06 if large else 0.3)
        check_classes(self.info.name, facts)
        if filled.kernel > side:
            raise UserError(
                f"cuda: a kernel of {filled.kernel} px does not fit images of "
                f"{facts.shape[1]}x{facts.shape[2]} px; choose at most kernel={side}"
            )
        return filled

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the difference between each image's convolution and the image."""
        kernels = self.kernels(data.n_classes, run)
        delta = run.zeros(*data.images.shape)
        at_once = max(1, CONVOLVED // data.images[0].numel())
        for label, kernel in enumerate(kernels):
            if not data.class_sizes[label]:
                continue
            for rows in (data.labels == label).nonzero().squeeze(1).split(at_once):
                images = data.pixels(rows)
                blurred = convolved(images, kernel)
                delta[rows.to(delta.device)] = blurred.sub_(images).to(delta.device)
        return delta

    def kernels(self, k: int, run: Run) -> Float[Tensor, "k s s"]:
        """Return the filter of each class."""
        side = self.kernel
        if self.filters == "authors":
            return torch.from_numpy(self._authors_kernels(k)).to(run.device)
        kernels = torch.rand(k, side * side, generator=run.rng, device=run.device) * self.blur
        at = torch.randint(side * side, (k, 1), generator=run.rng, device=run.device)
        return kernels.scatter_(1, at, self.center).view(k, side, side)

    def _authors_kernels(self, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Return the filters that numpy's generator gives in the order of the authors' draws.

        They draw three channels per class, and use the first for all of them.
        """
        rng = np.random.RandomState(AUTHORS_SEED)
        kernels = np.empty((k, self.kernel, self.kernel), dtype=np.float32)
        for kernel in kernels:
            kernel[:] = rng.uniform(0, self.blur, (3, self.kernel, self.kernel))[0]
            row, column = rng.randint(0, self.kernel, 2)
            kernel[row, column] = self.center
        return kernels


def convolved(
    images: Float[Tensor, "b c h w"], kernel: Float[Tensor, "s s"]
) -> Float[Tensor, "b c h w"]:
    """Return the cross-correlation of every channel with a filter, scaled to a maximum of 1.

    Zeros surround the image; for even sides there is one more of them below and to the right. The
    maximum is that of all channels of an image.
    """
    before, after = (len(kernel) - 1) // 2, len(kernel) // 2
    padded = F.pad(images.flatten(0, 1), (before, after, before, after))
    # planes as channels of one image: 20 times faster on a CPU than as images of one channel
    weights = kernel.expand(len(padded), 1, -1, -1)
    blurred = F.conv2d(padded, weights, groups=len(padded)).view(images.shape)
    return blurred / blurred.amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
