"""What the author of an attack or a defense sees: `Attack`, `Defense`, `Run`, `Facts`.

A method is a frozen pydantic model: its fields are the hyper-parameters, with range, unit and
default, so one definition gives the checks, `uebench show`, the record and the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, final

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..common.errors import MethodError
from ..common.options import Option, open_options, option_of, option_texts
from ..common.spec import Fraction255, format_spec
from ..data.poison import Budget, Norm, Poison, measure, quantise
from ..data.split import Split, content_hash
from ..learn.protocol import Protocol
from ..models import parse_arch
from ..store.arrays import as_tensor, is_finite
from .returned import checked_crop, wrong_return
from .run import Run

__all__ = ["Attack", "Defense", "Facts", "Fraction255", "Method", "MethodInfo", "Run"]


@dataclass(frozen=True)
class MethodInfo:
    """What the registry knows about a method in addition to its class."""

    kind: Literal["attack", "defense", "victim"]
    name: str
    title: str
    source: str
    origin: str
    """Where it was registered: `built-in`, `entry point NAME`, `file PATH` or `session`."""
    family: str = "other"
    """What it has in common with others, such as `augmentation`; wide tables are grouped by it."""
    package: str = ""
    """The installed package of an entry point and its version, `NAME VERSION`."""


@dataclass(frozen=True)
class Facts:
    """What is known about a cell before anything runs; `resolve` turns it into option values.

    Attributes:
        dataset: name of the data set without its options, such as `cifar10`.
        n_classes: number of classes.
        shape: channels, height and width of an image.
        epochs: epochs that the target model is trained for.
        surrogate: the network that attacks craft with unless they name another one.
        norm: the norm in which the poison's budget is measured; `linf` on clean data, and where the
            budget is a number of pixels or has no bound.
        eps: the poison's budget in that norm, in the pixel range [0, 1]; 8/255 where the budget
            says nothing. Only defenses see the poison's own norm and eps: attacks are resolved
            before them.
        batch_size: images per step of the target model's training.
        flip: whether the protocol mirrors images at random.
    """

    dataset: str
    n_classes: int
    shape: tuple[int, int, int]
    epochs: int
    surrogate: str
    norm: Norm = "linf"
    eps: float = 8 / 255
    batch_size: int = 128
    flip: bool = True

    def surrogate_for(self, asked: str) -> str:
        """Return the network that an attack crafts with: `surrogate` where it asks for `auto`.

        Raises:
            UserError: there is no such network, or it has no such option.
        """
        return self.surrogate if asked == "auto" else parse_arch(asked)[0]


class Method(BaseModel):
    """What attacks, defenses and victims share: options, checked, shown, recorded and hashed.

    Every field is an option. Its type and `Field(gt=..., le=...)` say what is accepted, its default
    is what the source uses, and the docstring below it gives meaning and unit. A field that depends
    on the data set or on the poison is marked with `Auto()`, and `resolve` fills it in.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
    version: ClassVar[int] = 1
    """Raise it when the method's numbers change: results of older versions are not reused."""
    published_as: ClassVar[str] = ""
    """The method whose published numbers are compared with this one, where this one only presets
    options of that method."""
    info: ClassVar[MethodInfo]

    def options(self) -> dict[str, Any]:
        """Return every option with its value, as plain data that JSON can hold."""
        return self.model_dump()

    def recipe(self) -> dict[str, Any]:
        """Return what identifies the method's results in the store.

        By default it is every option, but for those of `Option(later=True)` at their defaults.
        Override it to leave out an option that changes no number, such as a path, and to put in
        what does change numbers, such as the hash of the file.
        """
        fields = type(self).model_fields
        return {
            name: value
            for name, value in self.options().items()
            if not option_of(fields[name]).later or value != fields[name].default
        }

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        fields = type(self).model_fields
        return {k: v for k, v in self.options().items() if v != fields[k].default}

    @property
    def changed_text(self) -> str:
        """The changed options as they would be typed in a spec: `eps=16/255,rounds=5`."""
        return option_texts(self.changed(), type(self).model_fields)

    def __str__(self) -> str:
        return format_spec(self.info.name, self.changed_text)

    def resolve(self, facts: Facts) -> Self:
        """Return the method with every `auto` replaced by a value that suits the cell.

        It is called once while a run is planned, and the values enter the keys of the store. Most
        methods need no more than `return self.fill_auto(step=self.eps / 10)`. The default returns
        the method as it is.

        Args:
            facts: the data set, the protocol and, for a defense, the poison's budget.

        Raises:
            UserError: raise it to refuse options that do not go together; say what to do instead.
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

    An author writes `perturb`, and may override `resolve`, `budget`, `export` and `image_passes`.
    `craft` calls them and checks the result; it cannot be overridden. An attack whose budget is a
    number of pixels, or that has none, overrides `budget`; see `attacks/ops.py` for its fields.
    """

    deterministic: ClassVar[bool] = False
    """Whether the poison depends on the data alone. Other attacks are tested to change with the
    seed."""
    uncounted: ClassVar[str] = ""
    """What takes long in crafting although no image passes through a surrogate, such as `its
    generator`: the estimate of `--dry-run` leaves it out and says so."""
    norm: Literal["linf", "l2"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change in that norm, in the pixel range [0, 1]: of one pixel value for linf."""

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return the norm and radius that the 8-bit images must keep.

        `Budget("l0", n)` allows changes of `n` pixel positions, and `Budget("none", None)` any.

        Args:
            shape: channels, height and width of an image.
        """
        return Budget(self.norm, self.eps)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the perturbation that is added to each image.

        Args:
            data: the clean training set; leave its tensors unchanged.
            run: device, randomness and networks. Draw random numbers with `generator=run.rng` only.

        Returns:
            float [n, c, h, w] in the pixel range [0, 1], so that one 8-bit level is 1/255; image by
            image in the order of `data`, and within `budget` up to the rounding to 8 bits.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `perturb`; write it")

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images that are published: round(255 * clip(x + delta, 0, 1)).

        Override it only where a method's authors round differently.
        """
        return quantise(data.images, delta)

    def image_passes(self, n: int) -> int:
        """Return about how many forward and backward passes of one image the crafting takes.

        `uebench run --dry-run` multiplies it by the measured time of one pass. If a stop test ends
        the search, count the passes that it usually takes. 0 means that no surrogate is used.

        Args:
            n: number of training images.
        """
        return 0

    @final
    def craft(self, data: Split, run: Run) -> Poison:
        """Return the poisoned training set: perturbed, clipped, rounded to 8 bits and checked.

        Args:
            data: the clean training set.
            run: device, randomness and networks.

        Raises:
            MethodError: the perturbation is not a tensor of the images' shape, is not finite, or
                the published images are not 8-bit or exceed the budget, or the clean data set was
                changed in place.
        """
        clean = content_hash(data)
        delta = as_tensor(self.perturb(data, run), data.device)
        if not isinstance(delta, Tensor) or delta.shape != data.images.shape:
            wrong_return(self, "perturb", delta, f"float {list(data.images.shape)} is needed")
        if not is_finite(delta):
            raise MethodError(
                f"{self} returned a perturbation with NaN or infinite values; if it trains a "
                "network, that one has diverged, and a lower learning rate helps"
            )
        images = as_tensor(self.export(data, delta), data.device)
        if not (
            isinstance(images, Tensor)
            and images.dtype == torch.uint8
            and images.shape == data.images.shape
        ):
            wrong_return(self, "export", images, f"uint8 {list(data.images.shape)} is needed")
        if content_hash(data) != clean:  # the change would be measured against itself
            raise MethodError(
                f"{self}: the clean images or labels were changed in place; work on data.pixels() "
                "or on a clone"
            )
        budget = self.budget(data.shape)
        measured = measure(data.images, images, device=data.device)
        budget.check(measured, data.shape, str(self))
        index = torch.arange(len(data))
        return Poison(images.cpu(), data.labels.cpu(), index, {**run.notes, **measured.record()})


class Defense(Method):
    """Trains a target model so that it learns although the training images were perturbed.

    An author overrides `loss`, `prepare` or both, and `adjust` where the method needs another
    setting of the protocol, such as gradient clipping.
    """

    keep_prepared: ClassVar[bool] = False
    """Whether the result of `prepare` is cached in the store. Set it only where `prepare` is slow
    and draws no random numbers, since all training seeds share the cached result."""
    times_epochs: Annotated[float, Field(gt=0, le=100), Option(variant=True, later=True)] = 1.0
    """Factor on the protocol's epochs, under this defense alone: 2.4 turns 10 into 24. Heavy
    augmentation converges late, so a short protocol may judge it too early."""

    def adjust(self, protocol: Protocol) -> Protocol:
        """Return the protocol with the settings that this defense needs.

        Use `protocol.asked(clip_norm=5.0)`, which keeps a value that the user has set. Epochs and
        network are the user's choice and must stay as they are; `times_epochs` is applied later.
        """
        return protocol

    def ball(self) -> tuple[Norm, float] | None:
        """Return the norm and radius that the method trains its model to withstand.

        Robust accuracy is measured in this ball. None, the default, means that the method trains
        for none; robust accuracy is then measured in half of the poison's budget.
        """
        return None

    def effort(self) -> float:
        """Return how long a training step takes relative to standard training, roughly.

        The cells that take longest are started first, so that they do not hold up the end of a run.
        """
        return 1.0

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the training set that the model is trained on; called once, before training.

        Args:
            data: the poisoned training set; leave its tensors unchanged.
            run: device and randomness.

        Returns:
            8-bit images of the same size with their labels. The default is `data` itself.
        """
        return data

    def before_crop(
        self, images: UInt8[Tensor, "b c h w"], run: Run
    ) -> UInt8[Tensor, "b c h1 w1"] | Float[Tensor, "b c h1 w1"]:
        """Return the images of a batch as the protocol's crop and flip receive them.

        Override it for what must act before the crop, on every presentation of an image. The
        window that the crop takes has the size of the data set's images, whatever comes in here.

        Args:
            images: the prepared 8-bit images; leave them unchanged.
            run: `run.rng` draws; `run.epoch` tells how far the training is.

        Returns:
            8-bit images, or floats in the scale of [0, 1], which they may exceed. The default is
            `images` itself.
        """
        return images

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return the cropped and flipped images of a batch as the network is to see them.

        Override it for an augmentation that asks neither for labels nor for the network. Unlike
        one in `loss`, it also works under victims that learn without labels.

        Args:
            images: float in [0, 1]; do not change them in place.
            run: `run.rng` draws; `run.epoch` tells how far the training is.

        Returns:
            Images of the same shape. The default is `images` itself.
        """
        return images

    def acts_in_loss(self) -> bool:
        """Return whether the defense has a loss of its own, which only supervised victims use.

        By default it has one if its class has; override this if that depends on an option.
        """
        return type(self).loss is not Defense.loss

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch; by default the mean cross-entropy after `after_crop`.

        Args:
            model: the target network, in train mode; it must be returned to that mode.
            images: float in [0, 1], each already cropped and flipped at random; do not change them
                in place.
            labels: the class of each image, in 0..k-1.
            run: `run.epoch` and `run.epochs` tell how far the training is, and `run.rng` draws.

        Returns:
            A scalar with gradient. `run.cross_entropy` computes it in float32, since networks may
            run in bf16, and with the label smoothing that the protocol asks for.
        """
        with run.augmenting:
            images = checked_crop(self, self.after_crop(images, run), images)
            images = images.contiguous(memory_format=torch.channels_last)
        return run.cross_entropy(model(images), labels)
