"""OPS, one-pixel shortcut: one pixel of all images of a class gets the same extreme colour.

Source: Wu et al., "One-Pixel Shortcut: On the Learning Preference of Deep Neural Networks",
ICLR 2023, arXiv:2205.12141, and its authors' code.
Departs from the authors' code: any number of classes and any image size, while theirs only know ten
classes of 32 px; 8-bit images are rounded, while theirs are truncated, which does not change the
shortcut. As in their code, classes choose in order and never use the same pair of position and
colour, so that classes may share a position; with `sparsity` above 1 a class may choose two colours
for one position, of which the worse is painted last and stays, so that fewer pixels change. Their
published command trains without random crop and flip, under which the shortcut is much stronger.
Where all images of a class have the same value, theirs divides by zero; here such a pixel is chosen
only for a colour that it does not have.
Cost: 50,000 CIFAR-10 images took 0.7 s of one core without the checks of the result (AMD EPYC,
torch 2.14, n = 1).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from uebench import Attack, Budget, Facts, Run, Split, attack

from ._one_pixel import OnePixelOptions, find_shortcuts, paint


@attack("ops", title="OPS", source="arXiv:2205.12141", family="surrogate-free")
class OPS(OnePixelOptions, Attack):
    """Sets one pixel, the same in all images of a class, where it changes the images the most."""

    version: ClassVar[int] = 2
    deterministic: ClassVar[bool] = True
    norm: Literal["l0"] = "l0"  # type: ignore[assignment]
    """The budget is a number of pixels, `sparsity`, whose values may be anything."""
    eps: ClassVar[None] = None  # type: ignore[misc]

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return the number of pixels that may change."""
        return Budget("l0", float(self.sparsity))

    def resolve(self, facts: Facts) -> OPS:
        """Return the attack as it is.

        Raises:
            UserError: there are too few classes, or too many for the images' size.
        """
        self.check_pixels(facts)
        return self

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return zeros except for the chosen pixels."""
        delta = run.zeros(*data.images.shape)
        paint(data, delta, find_shortcuts(data, self.sparsity, self.score))
        return delta
