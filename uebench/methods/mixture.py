"""Several poisons in one training set: `mix[em=0.5,lsp=0.5]`, or `--mix em:0.5,lsp:0.5`.

Every attack of a mixture poisons its share of all training images, with the same share of each
class; the other images stay clean. The poison seed draws which images these are. Each attack sees
the whole training set, so that its poison is the one that it makes alone and is stored once for
both. An attack's options carry its name: `mix[em=0.5,em.eps=16/255,lsp=0.5]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..common.errors import MissingError, UserError
from ..common.names import MIXTURE
from ..data.poison import Budget
from ..data.split import Split
from .asked import Asked
from .base import Attack, Facts, MethodInfo
from .run import Run


class Part(NamedTuple):
    """An attack of a mixture, and the share of all training images that it poisons."""

    attack: Attack
    share: float


class MixedPoison(Attack):
    """Gives each of several attacks its own share of the training images."""

    info: ClassVar[MethodInfo] = MethodInfo(
        "attack",
        MIXTURE,
        "Mixture",
        "other attacks, each on its share of the images",
        "built-in",
        "mixture",
    )

    parts: tuple[Part, ...]
    """The attacks, in order of name."""

    def options(self) -> dict[str, Any]:
        """Return the share of each attack under its name, and its options under dotted names."""
        return dict(self._named(lambda part: part.share, Attack.options))

    def changed(self) -> dict[str, Any]:
        """Return the shares, and the options of the attacks that differ from their defaults."""
        return dict(self._named(lambda part: f"{part.share:.10g}", Attack.changed))

    def _named(
        self, share: Callable[[Part], Any], options: Callable[[Attack], Mapping[str, Any]]
    ) -> Iterator[tuple[str, Any]]:
        for part in self.parts:
            name = part.attack.info.name
            yield name, share(part)
            yield from ((f"{name}.{option}", v) for option, v in options(part.attack).items())

    def each(self, change: Callable[[Asked[Attack]], Attack]) -> MixedPoison:
        """Return the mixture with every attack replaced by what `change` returns for it."""
        parts = tuple(Part(change(Asked(part.attack)), part.share) for part in self.parts)
        return self.with_options(parts=parts)

    def resolve(self, facts: Facts) -> MixedPoison:
        """Return the mixture with the options of all its attacks filled in."""
        return self.each(lambda attack: attack.resolve(facts))

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return the largest budget of the attacks if all have one norm, and no bound otherwise.

        Each attack's own budget is checked where its poison is crafted.
        """
        budgets = [part.attack.budget(shape) for part in self.parts]
        radii = [budget.eps for budget in budgets if budget.eps is not None]
        if len({budget.norm for budget in budgets}) > 1 or not radii:
            return Budget("none", None)
        return Budget(budgets[0].norm, max(radii))

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Raise MissingError: the attacks craft, and their images are put together."""
        raise MissingError(f"{self} has no noise of its own; craft it with uebench.craft")

    def owners(self, labels: Int[Tensor, " n"], seed: int) -> Int[Tensor, " n"]:
        """Return which part poisons each image, -1 where none does.

        The parts get consecutive stretches of an order in which the classes alternate and the
        images of a class are shuffled. So a part's number of images is exact, and in each class it
        is at most one off.

        Raises:
            UserError: a part's share rounds to no image.
        """
        rng = torch.Generator().manual_seed(seed)
        shuffled = torch.randperm(len(labels), generator=rng)
        classes = labels.cpu()[shuffled]
        places = torch.zeros(len(labels), dtype=torch.float64)
        for label in classes.unique():
            rows = (classes == label).nonzero()[:, 0]
            places[rows] = (torch.arange(len(rows), dtype=torch.float64) + 0.5) / len(rows)
        order = shuffled[places.argsort(stable=True)]
        owners = torch.full((len(labels),), -1)
        first, reached = 0, 0.0
        for number, (attack, share) in enumerate(self.parts):
            reached += share
            last = round(reached * len(labels))
            if last == first:
                raise UserError(
                    f"{MIXTURE}: the share {share:g} of {attack.info.name} poisons none of the "
                    f"{len(labels)} training images; give it a larger one"
                )
            owners[order[first:last]] = number
            first = last
        return owners


def mixed(attack: Attack) -> list[Attack]:
    """Return an attack, followed by those that it mixes if it is a mixture."""
    parts = attack.parts if isinstance(attack, MixedPoison) else ()
    return [attack, *(part.attack for part in parts)]
