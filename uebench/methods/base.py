"""What the author of an attack or a defense sees: `Attack`, `Defense`, `Run`, `Facts`.

A method is a frozen pydantic model: its fields are the hyper-parameters, with range, unit and
default, so one definition gives the checks, `uebench show`, the record and the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..common.errors import MethodError
from ..common.options import open_options
from ..common.spec import Fraction255, format_options, format_spec
from ..data.poison import Budget, Norm, Poison, measure, quantise
from ..data.split import Split
from ..learn.protocol import Protocol
from ..store.arrays import is_finite
from .run import Run

__all__ = ["Attack", "Defense", "Facts", "Fraction255", "Method", "MethodInfo", "Run"]


@dataclass(frozen=True)
class MethodInfo:
    """What the registry knows of a method beside its class."""

    kind: Literal["attack", "defense"]
    name: str
    title: str
    source: str
    origin: str
    """Where it was registered: `built-in`, `entry point NAME`, `file PATH` or `session`."""


@dataclass(frozen=True)
class Facts:
    """What `plan()` knows of a cell and a method may turn into numbers before anything runs.

    Attributes:
        dataset: its name, such as `cifar10`.
        n_classes: number of classes.
        shape: channels, height, width.
        epochs: epochs of the target model's training.
        surrogate: the network that the protocol crafts with.
        norm: the norm that the poison's budget is measured in; `linf` on clean data.
        eps: the poison's budget in that norm; 8/255 on clean data.
    """

    dataset: str
    n_classes: int
    shape: tuple[int, int, int]
    epochs: int
    surrogate: str
    norm: Norm = "linf"
    eps: float = 8 / 255


class Method(BaseModel):
    """What attacks and defenses share: options that are checked, shown, recorded and hashed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
    version: ClassVar[int] = 1
    """Raised when the method's numbers change, which makes the stored cells stale."""
    info: ClassVar[MethodInfo]

    def options(self) -> dict[str, Any]:
        """Return every option with its value."""
        return self.model_dump()

    def recipe(self) -> dict[str, Any]:
        """Return what the key holds of the method: every option.

        A method with an option that changes no number, such as a path, leaves it out, and puts in
        what does, such as the file's hash.
        """
        return self.options()

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        fields = type(self).model_fields
        return {k: v for k, v in self.options().items() if v != fields[k].default}

    @property
    def changed_text(self) -> str:
        """The changed options as they would be typed: `eps=16/255,rounds=5`."""
        return format_options(self.changed())

    def __str__(self) -> str:
        return format_spec(self.info.name, self.changed())

    def resolve(self, facts: Facts) -> Self:
        """Return the method with what depends on the cell turned into numbers.

        The result enters the key. The default: as it is.
        """
        return self

    def with_options(self, **options: Any) -> Self:
        """Return the method with some options changed; the new values are not validated again."""
        return self.model_copy(update=options)

    def fill_auto(self, **values: Any) -> Self:
        """Return the method with these values for those of the options that are still `auto`.

        An option that the user set keeps its value: `self.fill_auto(step=self.eps / 10)`.
        """
        still_open = open_options(self.options(), type(self).model_fields)
        return self.with_options(**{k: v for k, v in values.items() if k in still_open})


class Attack(Method):
    """Changes training images within a budget so that a network trained on them learns nothing.

    An author writes `perturb`; `craft` is final.
    """

    norm: Literal["linf", "l2"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change: of one pixel value (linf) in the pixel range [0, 1]."""

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return norm and radius that the 8-bit images are held to, for images of this shape."""
        return Budget(self.norm, self.eps)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return what is added to each image, float, in the pixel range [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it perturbs")

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images that a data user receives: round(255 * clip(x + delta, 0, 1))."""
        return quantise(data.images, delta)

    def image_passes(self, n: int) -> int:
        """Return about how many images go forward and backward through a surrogate.

        `--dry-run` multiplies it by a measured time. Where a stop test ends a search, count what it
        usually takes. 0: no surrogate.
        """
        return 0

    @final
    def craft(self, data: Split, run: Run) -> Poison:
        """Return the poisoned training set: perturbed, clipped, quantised and audited.

        Raises:
            MethodError: the perturbation is no tensor, has the wrong shape, is not finite, or the
                8-bit images exceed the budget.
        """
        delta = self.perturb(data, run)
        if not isinstance(delta, Tensor):
            raise MethodError(
                f"{self}: perturb returned {type(delta).__name__}; a float tensor of shape "
                f"{tuple(data.images.shape)} is needed (is its `return` missing?)"
            )
        if delta.shape != data.images.shape:
            raise MethodError(
                f"{self} returned a perturbation of shape {tuple(delta.shape)}; "
                f"{tuple(data.images.shape)} is needed"
            )
        if not is_finite(delta):
            raise MethodError(f"{self} returned a perturbation with NaN or infinite values")
        images = self.export(data, delta)
        budget = self.budget(data.shape)
        measured = measure(data.images, images, device=data.device)
        budget.check(measured, data.shape, str(self))
        index = torch.arange(len(data))
        return Poison(images.cpu(), data.labels.cpu(), index, {**run.notes, **measured.record()})


class Defense(Method):
    """Trains a target model so that it learns although the training images were perturbed."""

    keep_prepared: ClassVar[bool] = False
    """Whether `prepare` is deterministic and slow enough for its result to be kept in the store."""

    def adjust(self, protocol: Protocol) -> Protocol:
        """Return the protocol with what this defense asks for, such as gradient clipping."""
        return protocol

    def effort(self) -> float:
        """Return about how long a training step takes against a plain one: long cells go first."""
        return 1.0

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the training set to train on; called once, before training. Default: as it is."""
        return data

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return a batch's loss, a scalar with gradient. Default: the mean cross-entropy.

        `images` lie in [0, 1] and were cropped and flipped once an image.
        """
        return F.cross_entropy(model(images), labels)
