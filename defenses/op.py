"""OP, orthogonal projection: what a linear model can learn is removed from the training images.

Source: Sandoval-Segura et al., "What Can We Learn from Unlearnable Datasets?", NeurIPS 2023,
arXiv:2305.19254. A bias-free logistic regression is fitted to the poisoned images; its weights span
one direction per class, and every training image loses its part in these directions. Test images
stay as they are.

The authors train on the projected images with a strong augmentation and with CutMix. Both are off
by default, so that the gain of the projection can be told from theirs: their published numbers
belong to `op[strong=true,cutmix=true]`, and `op[project=none,strong=true,cutmix=true]` is the
ablation. Those of dune-2026 do not say what it adds to the projection and stand at plain `op`. It
helps against LSP and OPS, in part against PIL, and hardly against AR. Linear separability does not
decide it: a linear detector finds CUDA and EM as well, and OP does little against these.

The linear model must be trained long enough. The authors' 20 passes over 50,000 images are 980
steps; 20 passes over 5,000 are 100, after which its weights still point along the mean image of the
training set. The projection, which is around zero, then takes part of the mean image away from the
training images, while test images keep it. So a smaller training set gets as many passes as it
takes to reach `fit_steps`.

Measured on 5,000 + 1,000 lossless CIFAR-10 images (resnet8, `quick`, bf16; single runs, +- 3.1):
clean data give 64.7 with standard training and 63.9 with OP, LSP 37.6 and 63.1, and OPS 62.7 with
OP. After only 100 steps, as 20 passes give, the mean image loses 7.6 % of its energy; clean
training reaches 18.9 or 48.5 (two seeds) and LSP 60.0 or 60.6. The network with 48.5 reaches 59.0
if the test images are projected too. Neither rounding to 8 bits (46.4) nor a first layer that
normalises the images (45.7) makes up for too few steps.

On all of CIFAR-10 (`sprint`, +- 1.0) clean images give 81.4 (83.6 with standard training), OPS 82.3
(15.3), LSP 82.2 (30.4), PIL 67.7 (27.5), CUDA 30.5 (27.4), TAP 22.5 (18.3), EM 20.7 (16.1) and AR
19.0 (11.2).

Cost: a training step of ResNet-18 takes 1.00 (0.99 to 1.02) of the time of standard training,
without the strong augmentation and CutMix (`benchmarks/step_costs.py --images 128`: bf16, one
thread of a shared AMD EPYC, torch 2.14, processor time, median and range of 3 rounds).

Departs from it: small training sets get more passes of the linear model; every image draws its own
strong augmentation, in a fixed order of operations, and cutmix mixes each image with probability
1/2 instead of half of the batches.
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

from ._batch import dense, mixed_cross_entropy

BATCH = 1024
"""Images per step of the logistic regression."""
LR = 0.1
"""Of the logistic regression; divided by ten after half and after three quarters of its epochs."""


@defense("op", title="OP", source="arXiv:2305.19254", family="purification")
class OrthogonalProjection(Defense):
    """Images lose their part in the row space of a linear model that was fitted to the poison."""

    version = 2  # 1 fitted the linear model with fewer steps to small training sets

    project: Literal["float", "8bit", "none"] = "float"
    """float: project each time an image is presented, neither clipped nor rounded, as the authors
    do; 8bit: project the training set once, clip and round it; none: no projection."""
    fit_epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Passes of the logistic regression over the training set, if these are `fit_steps` or more."""
    fit_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 980
    """Fewest steps of the logistic regression: those of 20 passes over 50,000 images."""
    strong: bool = False
    """Rotate by up to 10 degrees, shear by up to 10, scale by 0.8 to 1.2 and change brightness,
    contrast and saturation by up to a fifth, before crop and flip."""
    cutmix: bool = False
    """Mix half of the images by CutMix."""
    _basis: Tensor | None = PrivateAttr(None)

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
        epochs = max(self.fit_epochs, math.ceil(self.fit_steps / math.ceil(len(data) / BATCH)))
        basis = orthonormal_rows(fit_linear(data, epochs, run))
        if self.project == "8bit":
            return data.changed(
                lambda images: (
                    (255 * projected(images.float() / 255, basis))
                    .round_()
                    .clamp_(0, 255)
                    .to(torch.uint8)
                )
            )
        self._basis = basis
        return data

    def acts_in_loss(self) -> bool:
        """Return whether images are mixed; the projection alone needs no loss of its own."""
        return self.cutmix

    def state_dict(self) -> dict[str, Any]:
        """Return the basis, so that an interrupted training can be resumed."""
        return {"basis": self._basis}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a basis that was saved."""
        self._basis = state["basis"]

    def before_crop(
        self, images: UInt8[Tensor, "b c h w"], run: Run
    ) -> UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]:
        """Return the projected and strongly augmented images."""
        if self._basis is None and not self.strong:
            return images
        pixels = images.float() / 255
        if self._basis is not None:
            pixels = projected(pixels, self._basis.to(pixels.device))
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
