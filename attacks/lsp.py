"""LSP, linearly separable perturbations: a random colour patchwork that tells the class.

Source: Yu et al., "Availability Attacks Create Shortcuts", KDD 2022, arXiv:2111.00898.
Departs from the authors' code: as many samples are drawn as the largest class needs of each class,
so that unequal classes get enough; patches that do not divide the side are cropped, while theirs
crashes; the patch shrinks where there are too few features for the classes; poisoned images are
rounded to 8 bits, while theirs are truncated.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Attack, Auto, Facts, Fraction255, Run, Split, UserError, attack, auto

from ._class_wise import check_classes

PAINTED_VALUES = 2**19
"""Most values that are painted at a time, so that they fit a core's cache."""


@attack("lsp", title="LSP", source="arXiv:2111.00898", family="surrogate-free")
class LSP(Attack):
    """Points of well-separated Gaussian clusters, one per class, painted as coloured patches."""

    version: ClassVar[int] = 2
    norm: Literal["l2"] = "l2"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=100), Auto()] = auto()
    """l2 norm of each perturbation in the pixel range [0, 1]; auto: 6/255 * sqrt(c*h*w), which is
    1.304 for 32 px colour images. Some tables print 1.0."""
    patch: Annotated[int, Field(ge=1, le=4096), Auto()] = auto()
    """Side of a patch in pixels; auto: a quarter of the side, which is 8 at 32 px, and 32
    from 128 px on; smaller where classes are many."""
    class_sep: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    """Half the distance between cluster centres along a feature."""

    def resolve(self, facts: Facts) -> LSP:
        """Return the attack with budget and patch filled in.

        Raises:
            UserError: there is one class, or the patches give too few features for the classes.
        """
        check_classes(self.info.name, facts)
        c, h, w = facts.shape
        patch = max(1, 32 if max(h, w) >= 128 else max(h, w) // 4)
        # every class needs a corner of the hypercube of features for its cluster's centre
        while patch > 1 and 2 ** self._features(facts.shape, patch) < facts.n_classes:
            patch //= 2
        filled = self.fill_auto(eps=6 / 255 * math.sqrt(c * h * w), patch=patch)
        features = self._features(facts.shape, filled.patch)
        if 2**features < facts.n_classes:
            raise UserError(
                f"lsp: patches of {filled.patch} px give {features} features, too few for "
                f"{facts.n_classes} classes; choose a smaller patch"
            )
        return filled

    @staticmethod
    def _features(shape: tuple[int, int, int], patch: int) -> int:
        """Return the number of features: one per channel of each patch."""
        c, h, w = shape
        return c * math.ceil(h / patch) * math.ceil(w / patch)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the next sample of each image's class as patches, scaled to l2 = eps."""
        c, h, w = data.shape
        features = self._features(data.shape, self.patch)
        rows = torch.arange(h, device=run.device) // self.patch
        columns = torch.arange(w, device=run.device) // self.patch
        area = torch.outer(rows.bincount(), columns.bincount())  # pixels of each patch
        points = self._samples(data, features, run).view(-1, *area.shape, c).permute(0, 3, 1, 2)
        # a feature fills all pixels of its patch, and patches at the border are smaller
        squares = (points.square() * area).flatten(1).sum(1)
        points = points * (self.eps / squares.sqrt()).view(-1, 1, 1, 1)
        delta = run.zeros(len(data), c, h, w)
        together = max(1, PAINTED_VALUES // (c * h * w))
        for part, point in zip(delta.split(together), points.split(together), strict=True):
            part[:] = point.index_select(3, columns).index_select(2, rows)
        return delta

    def _samples(self, data: Split, features: int, run: Run) -> Float[Tensor, "n f"]:
        """Return one sample of its class for each image, none used twice."""
        from sklearn.datasets import make_classification  # takes as long to load as torch

        k, most = data.n_classes, max(data.class_sizes)
        # make_classification rounds the class sizes, hence one sample more per class
        points, classes = make_classification(
            n_samples=k * (most + 1),
            n_features=features,
            n_informative=features,
            n_redundant=0,
            n_repeated=0,
            n_classes=k,
            n_clusters_per_class=1,
            class_sep=self.class_sep,
            flip_y=0.0,
            random_state=int(torch.randint(2**31, (), generator=run.rng, device=run.device)),
        )
        labels = data.labels.cpu().numpy()
        chosen = np.empty(len(labels), dtype=np.int64)
        for label in range(k):
            mine = np.flatnonzero(labels == label)
            chosen[mine] = np.flatnonzero(classes == label)[: len(mine)]
        return torch.from_numpy(points[chosen].astype(np.float32)).to(run.device)
