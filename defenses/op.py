"""OP, orthogonal projection: what a linear model can learn is removed from the training images.

Source: Sandoval-Segura et al., "What Can We Learn from Unlearnable Datasets?", NeurIPS 2023,
arXiv:2305.19254. A bias-free logistic regression is fitted to the poisoned images; its weights span
one direction per class, and every training image loses its part in these directions. Test images
stay as they are.

The authors train on the projected images with a strong augmentation and with CutMix. Both are off
by default, so that the gain of the projection can be told from theirs: their published numbers
belong to `op[strong=true,cutmix=true]`, and `op[project=none,strong=true,cutmix=true]` is the
ablation. It helps where the poison is linearly separable (LSP, OPS, class-wise noise), and hardly
against AR, which is not.

What it costs on clean data: the projection is around zero, so it also takes away the part of the
mean image that lies in these directions. Test images keep that part, and so differ from everything
that the network was trained on. The linear model takes few steps on a small training set, and its
weights then still point along the mean image: with 5,000 images of CIFAR-10 test images lose 9.6 %
of their energy and the mean image 7.6 %, with all 50,000 they lose 1.6 % and 0.1 %. `around=mean`,
which is ours, projects around the mean image of the training set instead.

Measured on 5,000 + 1,000 lossless CIFAR-10 images (resnet8, `quick`, bf16, no first layer that
normalises; single runs, +- 3.1): clean training falls from 64.7 to 18.9 or 48.5 (two seeds) under
`op`, and to 60.8 under `op[around=mean]`; LSP rises from 37.6 to 60.0 or 60.6, and to 61.3. The
network that reaches 48.5 reaches 59.0 if the test images are projected too, which the authors do
not do, so the shift between training and test images costs more than the information that is lost.
Rounding to 8 bits does not change that (46.4), nor does a first layer that normalises (45.7).

Departs from it: every image draws its own strong augmentation, in a fixed order of operations, and
cutmix mixes each image with probability 1/2 instead of half of the batches.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from uebench import Defense, Facts, Run, Split, UserError, defense
from uebench.augment import cutmix
from uebench.augment.affine import affine_matrix, warp_pixels
from uebench.augment.pillow import adjust_brightness, adjust_contrast, adjust_saturation
from uebench.store.arrays import chunks

from ._batch import dense, mixed_cross_entropy

BATCH = 1024
LR = 0.1
"""Of the logistic regression; divided by ten after half and after three quarters of its epochs."""


@defense("op", title="OP", source="arXiv:2305.19254")
class OrthogonalProjection(Defense):
    """Images lose their part in the row space of a linear model that was fitted to the poison."""

    project: Literal["float", "8bit", "none"] = "float"
    """float: project each time an image is presented, neither clipped nor rounded, as the authors
    do; 8bit: project the training set once, clip and round it; none: no projection."""
    around: Literal["zero", "mean"] = "zero"
    """What the projection leaves unchanged: the black image, as the authors do, or the mean image
    of the training set."""
    fit_epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Passes of the logistic regression over the training set."""
    strong: bool = False
    """Rotate by up to 10 degrees, shear by up to 10, scale by 0.8 to 1.2 and change brightness,
    contrast and saturation by up to a fifth, before crop and flip."""
    cutmix: bool = False
    """Mix half of the images by CutMix."""
    _basis: Tensor | None = PrivateAttr(None)
    _offset: Tensor | None = PrivateAttr(None)

    def recipe(self) -> dict[str, Any]:
        """Return the options, without `around` at its default: it came after results had keys."""
        options = self.options()
        if self.around == "zero":
            del options["around"]
        return options

    def resolve(self, facts: Facts) -> OrthogonalProjection:
        """Return the defense, unless the projection would leave nothing of the images."""
        n_values = math.prod(facts.shape)
        if self.project != "none" and facts.n_classes >= n_values:
            raise UserError(
                f"op: {facts.n_classes} directions are removed from images of {n_values} values, "
                "which leaves nothing; use larger images or fewer classes"
            )
        return self

    def prepare(self, data: Split, run: Run) -> Split:
        """Fit the linear model; return the training set, projected if it is kept in 8 bits."""
        if self.project == "none":
            return data
        self._basis = orthonormal_rows(fit_linear(data, self.fit_epochs, run))
        if self.around == "mean":
            mean = mean_image(data)
            self._offset = mean - projected(mean, self._basis)
        if self.project == "float":
            return data
        rounded = data.changed(
            lambda images: (255 * self._projected(images)).round_().clamp_(0, 255).to(torch.uint8)
        )
        self._basis = self._offset = None
        return rounded

    def _projected(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return projected pixels in the scale of [0, 1]."""
        assert self._basis is not None, "`prepare` is called first"
        rest = projected(images.float() / 255, self._basis.to(images.device))
        return rest if self._offset is None else rest + self._offset.to(images.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the projection, so that an interrupted training can be resumed."""
        return {"basis": self._basis, "offset": self._offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a projection that was saved."""
        self._basis, self._offset = state["basis"], state["offset"]

    def before_crop(
        self, images: UInt8[Tensor, "b c h w"], run: Run
    ) -> UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]:
        """Return the projected and strongly augmented images."""
        if self._basis is None and not self.strong:
            return images
        pixels = images.float() / 255 if self._basis is None else self._projected(images)
        return strongly_augmented(pixels, run.rng) if self.strong else pixels

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy, with both labels of a mixture under CutMix."""
        if not self.cutmix:
            return super().loss(model, images, labels, run)
        with run.augmenting:
            mixed = cutmix(images, run.rng, beta=1.0, probability=0.5)
        logits = model(dense(mixed.images))
        return mixed_cross_entropy(logits, labels, mixed, run.cross_entropy).mean()


def fit_linear(data: Split, epochs: int, run: Run) -> Float[Tensor, "k d"]:
    """Return the weights of a bias-free logistic regression on flattened images in [0, 1].

    It begins at torch's usual weights of a linear layer and is trained by SGD without momentum on
    batches in a fixed order.
    """
    n_values = math.prod(data.shape)
    start = torch.rand(data.n_classes, n_values, generator=run.rng, device=run.device)
    weight = (2 * start - 1) / math.sqrt(n_values)
    for epoch in range(epochs):
        rate = LR * 0.1 ** ((2 * epoch >= epochs) + (4 * epoch >= 3 * epochs))
        for begin in range(0, len(data), BATCH):
            part = slice(begin, begin + BATCH)
            pixels, labels = data.pixels(part).flatten(1), data.labels[part]
            # the gradient of the mean cross-entropy: probabilities minus labels, times the images
            error = (pixels @ weight.T).softmax(1)
            error[torch.arange(len(labels), device=labels.device), labels] -= 1
            weight.addmm_(error.T, pixels, alpha=-rate / len(labels))
        run.progress((epoch + 1) / epochs, f"linear model, epoch {epoch + 1}")
    return weight


def orthonormal_rows(weight: Float[Tensor, "k d"]) -> Float[Tensor, "d k"]:
    """Return an orthonormal basis, as columns, of what the rows of `weight` span."""
    rows = weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
    basis: Tensor = torch.linalg.qr(rows.T)[0]
    return basis


def mean_image(data: Split) -> Float[Tensor, "1 c h w"]:
    """Return the mean of a training set's images, in [0, 1]."""
    total = torch.zeros(1, *data.shape, dtype=torch.float64, device=data.device)
    for part in chunks(data.images):
        total += data.pixels(part).sum(0, keepdim=True, dtype=torch.float64)
    return (total / len(data)).float()


def projected(
    images: Float[Tensor, "b c h w"], basis: Float[Tensor, "d k"]
) -> Float[Tensor, "b c h w"]:
    """Return the images without their part in the span of `basis`."""
    flat = images.flatten(1)
    rest: Tensor = flat - (flat @ basis) @ basis.T
    return rest.view_as(images)


def strongly_augmented(
    images: Float[Tensor, "b c h w"], rng: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return the images rotated, sheared, scaled and changed in colour, which clips to [0, 1]."""
    draws = torch.rand(6, len(images), generator=rng, device=images.device) * 2 - 1
    degrees = math.pi / 180
    angle, shear, scale = draws[0] * 10 * degrees, draws[1] * 10 * degrees, 1 + 0.2 * draws[2]
    images = warp_pixels(images, affine_matrix(angle, shear, scale))
    images = adjust_brightness(images, 1 + 0.2 * draws[3])
    images = adjust_contrast(images, 1 + 0.2 * draws[4])
    return adjust_saturation(images, 1 + 0.2 * draws[5])
