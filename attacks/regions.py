"""Regions-k: every class gets a random sign in each tile of a grid and each channel.

Source: Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning", NeurIPS 2022,
arXiv:2206.03693, with 4, 16 and 64 tiles; the paper of `op` (arXiv:2305.19254) has it too.
Departs from it: no two classes get the same signs, which few tiles and many classes make likely.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from uebench import Attack, Auto, Facts, Fraction255, Run, Split, UserError, attack, auto

from ._class_wise import check_classes, spread_over_images

MOST_SHUFFLED = 20
"""Largest number of signs for which the codes of the classes are taken from a shuffled list of all
codes; with more signs two classes hardly ever draw the same, and all draw again if they do."""


@attack("regions", title="Regions", source="arXiv:2206.03693", family="surrogate-free")
class Regions(Attack):
    """A grid of tiles per class, each with a random sign in every channel."""

    norm: Literal["linf", "l2"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=100), Auto()] = auto()
    """Budget in the pixel range [0, 1]; auto: 8/255, or where norm is l2 1.0 at 32 px, in
    proportion to the square root of the number of values."""
    tiles: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Number of tiles, a square number; the papers have 4, 16 and 64."""

    @field_validator("tiles")
    @classmethod
    def _is_square(cls, tiles: int) -> int:
        if math.isqrt(tiles) ** 2 != tiles:
            raise UserError("a grid has as many rows as columns; give 4, 16, 64 or another square")
        return tiles

    def resolve(self, facts: Facts) -> Regions:
        """Return the attack with its budget filled in.

        Raises:
            UserError: there is one class, there are fewer patterns than classes, or the images have
                fewer pixels in a row than there are tiles.
        """
        check_classes(self.info.name, facts)
        c, h, w = facts.shape
        side = math.isqrt(self.tiles)
        if min(h, w) < side:
            raise UserError(
                f"regions: {self.tiles} tiles need images of at least {side}x{side} px, got "
                f"{h}x{w}; lower tiles"
            )
        if 2 ** (self.tiles * c) < facts.n_classes:
            raise UserError(
                f"regions: {self.tiles} tiles and {c} channels give {2 ** (self.tiles * c)} "
                f"patterns, too few for {facts.n_classes} classes; raise tiles"
            )
        eps = 8 / 255 if self.norm == "linf" else round(math.sqrt(c * h * w / 3072), 3)
        filled = self.fill_auto(eps=eps)
        if filled.norm == "linf" and filled.eps > 1:
            raise UserError(
                f"regions: a linf eps lies in (0, 1], got {filled.eps:g}; divide by 255"
            )
        scale = filled._scale(facts.shape)
        if math.floor(255 * scale + 0.5) == 0:
            least = math.ceil(5000 / 255 * filled.eps / scale) / 10_000
            raise UserError(
                f"regions: an eps of {filled.eps:g} changes each value by {255 * scale:.2g} of 255 "
                f"levels, which rounds to nothing; take an eps of at least {least:g}"
            )
        return filled

    def _scale(self, shape: tuple[int, ...]) -> float:
        """Return the change of every value of images of this shape."""
        return self.eps if self.norm == "linf" else self.eps / math.sqrt(math.prod(shape))

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the signs of each image's class, scaled to the budget."""
        c, h, w = data.shape
        side = math.isqrt(self.tiles)
        signs = self._signs(data.n_classes, c * self.tiles, run).view(-1, c, side, side)
        rows = torch.arange(h, device=run.device) * side // h
        columns = torch.arange(w, device=run.device) * side // w
        tiles = signs[:, :, rows][..., columns]
        return spread_over_images(tiles * self._scale(data.shape), data, run)

    @staticmethod
    def _signs(k: int, n: int, run: Run) -> Float[Tensor, "k n"]:
        """Return -1 and 1 for each class, no two classes alike."""
        if n > MOST_SHUFFLED:
            bits = torch.randint(2, (k, n), generator=run.rng, device=run.device)
            while len(bits.unique(dim=0)) < k:
                bits = torch.randint(2, (k, n), generator=run.rng, device=run.device)
        else:
            codes = torch.randperm(2**n, generator=run.rng, device=run.device)[:k]
            bits = codes.unsqueeze(1) >> torch.arange(n, device=run.device) & 1
        return 2.0 * bits - 1
