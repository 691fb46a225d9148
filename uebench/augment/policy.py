"""The augmentation of UEraser: plasma brightness and contrast, channel shuffle, TrivialAugment.

Source: Qin et al., "Learning the Unlearnable", arXiv:2303.15127, Table 13, and the authors' public
code. Parts are named by letters, as in the paper's ablation (Table 8), and always run in this
order: `p` plasma brightness and plasma contrast, `c` channel shuffle, `t` TrivialAugment or, in its
place, `a` AutoAugment.
Departs from it: `engine="native"` is our own, faster code for the same operations, and by default
every image draws its own TrivialAugment operation, as the paper says; kornia draws one per batch.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..common.errors import UserError
from ..store.arrays import Array, as_tensor
from .autoaugment import auto_augment
from .color import Kornia, draw_channels
from .plasma import Range, change_sorted, order_by_operation
from .trivial import Draw, apply_sorted, draw_operations, draw_strengths

__all__ = ["STRENGTHS", "Policy", "Strength"]

Strength = Literal["paper", "authors", "notebook", "2023"]
Engine = Literal["native", "kornia"]


class _Numbers(NamedTuple):
    """What a strength means."""

    roughness: Range
    intensity: Range
    plasma_p: float
    plasma_contrast: bool = True
    shuffle_p: float = 0.5


STRENGTHS: dict[Strength, _Numbers] = {
    "paper": _Numbers((0.1, 0.7), (0.0, 1.0), 0.5),
    "authors": _Numbers((0.3, 0.7), (0.5, 1.0), 0.5),
    "notebook": _Numbers((0.3, 0.7), (0.5, 1.0), 1.0),
    "2023": _Numbers((0.1, 0.7), (0.0, 1.0), 0.5, plasma_contrast=False),
}
"""`paper`: Table 13. `authors`: their ueraser.py since February 2024. `notebook`: their notebook,
and APBench. `2023`: all their files before, where the plasma contrast was commented out."""

_LETTERS = ("p", "c", "t", "a")


@dataclass(frozen=True)
class Policy:
    """A random augmentation of a batch in [0, 1], drawn again at every call.

    Raises:
        ValueError: an option is not among those listed, or two do not go together.
    """

    letters: str = "p+c+t"
    """Which parts, joined by "+"; kept in the order p, c, t (or a in its place)."""
    strength: Strength = "paper"
    """Whose numbers for plasma and shuffle; see `STRENGTHS`."""
    kornia: Kornia = "0.6"
    """Whose behaviour: "0.6" is what the paper ran, "0.9" has none of its bias."""
    draw: Draw = "image"
    """Whether an image or the whole batch draws a TrivialAugment operation."""
    engine: Engine = "native"
    """"kornia" runs the installed library instead, for reference; needs `draw="batch"`."""

    def __post_init__(self) -> None:
        """Check the options and put the letters in order."""
        _check("strength", self.strength, get_args(Strength))
        _check("kornia", self.kornia, get_args(Kornia))
        _check("draw", self.draw, get_args(Draw))
        _check("engine", self.engine, get_args(Engine))
        object.__setattr__(self, "letters", _in_order(self.letters))
        if self.engine == "kornia" and self.draw == "image":
            raise UserError(
                "engine='kornia' cannot draw an operation for every image, got draw='image'; "
                "use draw='batch' or engine='native'"
            )
        if self.engine == "kornia" and "a" in self.letters:
            raise UserError(
                f"engine='kornia' has no AutoAugment for CIFAR-10, got letters={self.letters!r}; "
                "use engine='native'"
            )

    def check(self) -> None:
        """Raise ValueError where the installed kornia cannot run `engine="kornia"` as asked."""
        if self.engine == "kornia":
            _kornia_pipeline(self)

    def __call__(
        self, images: Float[Tensor | Array, "b c h w"], rng: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return the augmented images, in [0, 1]; the input stays as it is.

        Args:
            images: in [0, 1], of a floating-point type, which is kept.
            rng: the only source of randomness, on the images' device.

        Raises:
            ValueError: the images are not a batch of floating-point images.
        """
        images = as_tensor(images)
        if images.dim() != 4 or not images.is_floating_point():
            raise UserError(
                f"images must be floating-point [b, c, h, w], got {images.dtype} "
                f"{list(images.shape)}; divide 8-bit images by 255"
            )
        return self._by_kornia(images, rng) if self.engine == "kornia" else self._own(images, rng)

    def _own(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return the images augmented by this package."""
        b, c, h, w = images.shape
        followed = images.requires_grad and torch.is_grad_enabled()
        # Without autograd's bookkeeping, where nobody wants it: a tenth of the time.
        with contextlib.nullcontext() if followed else torch.inference_mode():
            planes, order = self._in_some_order(images, rng)
        # The copy is an ordinary tensor again, which autograd may keep.
        images = planes.index_select(0, order).view(b, c, h, w)
        return auto_augment(images, rng) if "a" in self.letters else images

    def _in_some_order(
        self, images: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Int[Tensor, " n"]]:
        """Return the augmented images, or their channels, and the order that puts them right.

        Each part wants the images in an order of its own. The way back from the first, the shuffle
        and the way into the last are one copy.
        """
        b, c, h, w = images.shape
        device, numbers = images.device, STRENGTHS[self.strength]
        # Who takes part in what is drawn first and read back at once: one wait per call for a GPU.
        coins = torch.rand(2, b, generator=rng, device=device) < numbers.plasma_p
        operation = draw_operations(b, rng, self.draw)
        bright, stretched, operation = torch.cat([coins, operation[None]]).cpu()
        place, taken = torch.arange(b), torch.arange(b)
        if "p" in self.letters:
            order = order_by_operation(bright == 1, (stretched == 1) & numbers.plasma_contrast)
            images = images.index_select(0, order.images.to(device))
            change_sorted(images, order, rng, numbers.roughness, numbers.intensity, self.kornia)
            place = order.images.argsort()
        if "t" in self.letters:
            taken = operation.argsort(stable=True)
            operation = operation[taken]
        channels = draw_channels(b, c, rng, numbers.shuffle_p if "c" in self.letters else 0.0)
        source = (c * place[taken].to(device)[:, None] + channels).view(-1)
        planes = images.reshape(b * c, h, w)
        if "t" not in self.letters:
            return planes, source
        strength = draw_strengths(operation, rng, device, self.kornia)
        images = planes.index_select(0, source).view(b, c, h, w)
        images = apply_sorted(images, operation, strength, self.kornia)
        return images, taken.argsort().to(device)

    def _by_kornia(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return the images augmented by the kornia library."""
        pipeline = _kornia_pipeline(self)
        seed = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return pipeline(images)


def _check(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise a ValueError unless `value` is accepted."""
    if value not in accepted:
        raise UserError(f"{name} must be one of {', '.join(accepted)}, got {value!r}; choose one")


def _in_order(letters: str) -> str:
    """Return the letters in the order in which they run."""
    parts = letters.split("+")
    if len(set(parts)) < len(parts) or not set(parts) <= set(_LETTERS):
        raise UserError(
            "letters must be p, c, and t or a, each at most once and joined by '+', got "
            f"{letters!r}; write for example p+c+t"
        )
    if {"t", "a"} <= set(parts):
        raise UserError(f"letter a stands in t's place, got {letters!r}; leave one of them out")
    return "+".join(letter for letter in _LETTERS if letter in parts)


@lru_cache
def _kornia_pipeline(policy: Policy) -> Callable[[Tensor], Tensor]:
    """Return the kornia modules of a policy, composed as the authors do."""
    import kornia
    import kornia.augmentation as K

    behaviour = "0.6" if tuple(map(int, kornia.__version__.split(".")[:2])) < (0, 9) else "0.9"
    if behaviour != policy.kornia:
        raise UserError(
            f"engine='kornia' with kornia={policy.kornia!r} needs another kornia than the "
            f"installed {kornia.__version__}; use kornia={behaviour!r} or engine='native'"
        )
    numbers = STRENGTHS[policy.strength]
    parts: list[Any] = []
    if "p" in policy.letters:
        parts.append(
            K.RandomPlasmaBrightness(numbers.roughness, numbers.intensity, p=numbers.plasma_p)
        )
        if numbers.plasma_contrast:
            parts.append(K.RandomPlasmaContrast(numbers.roughness, p=numbers.plasma_p))
    if "c" in policy.letters:
        parts.append(K.RandomChannelShuffle(p=numbers.shuffle_p))
    if "t" in policy.letters:
        parts.append(K.auto.TrivialAugment())
    return K.AugmentationSequential(*parts)
