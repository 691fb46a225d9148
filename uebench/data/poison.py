"""A poison: the 8-bit images that a data user receives, and measurements of their changes.

A budget is checked on the 8-bit images: linf at most round(255 * eps) levels; l2 at most
eps + 0.5/255 * sqrt(c*h*w), since rounding moves each value by up to half a level; l0 at most eps
pixel positions, whatever their values. The budget `none` allows everything.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ..common.errors import MethodError
from ..common.notebook import pictures_html, png_bytes, show_picture
from ..store.arrays import add_bytes, chunks, copied, zeros
from .conversion import PoisonError as PoisonError
from .conversion import as_images, as_whole_numbers
from .dataset import Dataset
from .pictures import contact_sheet, samples
from .poison_writing import check_target, write_poison
from .split import Split

Norm = Literal["linf", "l2"]
"""The norms in which a gradient step and a projection are defined."""
BudgetNorm = Literal["linf", "l2", "l0", "none"]
"""What a poison's budget may bound: a norm, the number of changed pixel positions, or nothing."""
CLEAN_BALL: tuple[Norm, float] = ("linf", 8 / 255)
"""Norm and radius that stand in for a poison's where there are none, as on clean data."""


def quantise(
    images: UInt8[Tensor, "n c h w"], delta: Float[Tensor, "n c h w"]
) -> UInt8[Tensor, "n c h w"]:
    """Return round(255 * clip(x + delta, 0, 1)) as uint8."""
    out = zeros(images.shape, torch.uint8, images.device)
    for part in chunks(images):
        pixels = images[part].float() + delta[part].to(images.device).float() * 255
        out[part] = pixels.clamp_(0, 255).round_().to(torch.uint8)
    return out


class Measured(NamedTuple):
    """How much each image was changed: linf in levels of 255, l2 in the pixel range [0, 1]."""

    linf: Float[Tensor, " n"]
    l2: Float[Tensor, " n"]
    l0: Float[Tensor, " n"]
    psnr: Float[Tensor, " n"]
    ssim: Float[Tensor, " n"]

    def record(self) -> dict[str, float]:
        """Return mean and max of each norm, and mean PSNR (dB) and SSIM, for `meta.json`."""
        summary = {}
        for name in ("linf", "l2", "l0"):
            values = getattr(self, name).double()
            summary[f"{name}_mean"] = values.mean().item()
            summary[f"{name}_max"] = values.max().item()
        finite = self.psnr[self.psnr.isfinite()]
        summary["psnr_mean"] = finite.double().mean().item() if len(finite) else math.inf
        summary["ssim_mean"] = self.ssim.double().mean().item()
        summary["changed_share"] = (self.l0 > 0).double().mean().item()
        return {key: (round(v, 6) if math.isfinite(v) else None) for key, v in summary.items()}  # type: ignore[misc]


def measure(
    clean: UInt8[Tensor, "m c h w"],
    images: UInt8[Tensor, "n c h w"],
    index: Int[Tensor, " n"] | None = None,
    device: torch.device | None = None,
) -> Measured:
    """Measure the change of each image: its norms, and how visible it is.

    linf counts levels of 255, l2 is in the pixel range [0, 1], l0 counts pixel positions with any
    channel changed. PSNR is infinite for an unchanged image.

    Args:
        clean: the original images.
        images: the changed images.
        index: the clean image of each changed one; by default both are in the same order.
        device: the device that computes; by default that of `images`.
    """
    columns: list[tuple[Tensor, ...]] = []
    device = images.device if device is None else device
    for part in chunks(images):
        before = clean[part] if index is None else clean[index[part]]
        x, y = before.to(device).float(), images[part].to(device).float()
        d = y - x
        mse = d.square().mean((1, 2, 3)) / 255**2
        columns.append(
            (
                d.abs().amax((1, 2, 3)),
                d.square().sum((1, 2, 3)).sqrt() / 255,
                (d != 0).any(1).sum((1, 2)).float(),
                -10 * mse.log10(),
                _ssim(x / 255, y / 255),
            )
        )
    return Measured(*(torch.cat(column).cpu() for column in zip(*columns, strict=True)))


def _ssim(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Return the mean structural similarity (Wang et al. 2004): 11x11 Gaussian window, sd 1.5.

    Images smaller than the window take the largest odd window that fits.
    """
    size = min(11, *(side - 1 + side % 2 for side in x.shape[2:]))
    line = torch.arange(size, device=x.device, dtype=x.dtype) - size // 2
    line = torch.exp(-line.square() / (2 * 1.5**2))
    line = line / line.sum()
    # A convolution written as a product with a band matrix is seven times as fast at 32 px.
    eyes = [torch.eye(side, dtype=x.dtype, device=x.device) for side in x.shape[2:]]
    down, across = (F.conv1d(eye[:, None], line.view(1, 1, -1))[:, 0] for eye in eyes)

    def blur(z: Tensor) -> Tensor:
        return down.T @ (z @ across)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * vxy + c2)
    return (similarity / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean((1, 2, 3))


class Budget(NamedTuple):
    """What bounds a poison's perturbations.

    Attributes:
        norm: `linf`, `l2` of a whole image, `l0`, or `none` for no bound.
        eps: the bound: in the pixel range [0, 1] for linf and l2, pixel positions for l0; None if
            there is none.
    """

    norm: BudgetNorm
    eps: float | None

    def allowed(self, shape: tuple[int, int, int]) -> float:
        """Return the limit for 8-bit images: in levels, in l2 with slack for rounding, or pixels.

        It is infinite for the budget `none`.
        """
        if self.norm == "none" or self.eps is None:
            return math.inf
        if self.norm == "linf":
            return float(math.floor(255 * self.eps + 0.5))
        if self.norm == "l0":
            return float(self.eps)
        return self.eps + 0.5 / 255 * math.sqrt(math.prod(shape))

    @property
    def ball(self) -> tuple[Norm, float]:
        """The norm and radius that defenses tie themselves to, such as adversarial training.

        A number of pixels is no radius of a ball, so that budgets in l0 and without a bound are
        treated as clean data is.
        """
        if self.eps is None or self.norm == "l0" or self.norm == "none":
            return CLEAN_BALL
        return self.norm, self.eps

    def check(self, measured: Measured, shape: tuple[int, int, int], who: str) -> None:
        """Raise MethodError if an image exceeds the budget."""
        allowed = self.allowed(shape)
        if self.norm == "none":
            return
        values: Tensor = getattr(measured, self.norm)
        largest = values.max().item()
        if largest > allowed + 1e-4:
            over = int((values > allowed + 1e-4).sum())
            unit = {"linf": " levels of 255", "l0": " pixels"}.get(self.norm, "")
            raise MethodError(
                f"{who} exceeds its {self.norm} budget on {over} of {len(values)} 8-bit images: "
                f"{largest:.4g}{unit}, allowed are {allowed:.4g}; project the perturbation"
            )


@no_type_check  # arrays and lists are accepted too: `__post_init__` converts or refuses them
@dataclass(frozen=True, eq=False, repr=False)
class Poison:
    """A poisoned training set.

    Attributes:
        images: uint8 [n, c, h, w].
        labels: int64 [n].
        index: int64 [n], the position of each image in the clean training set.
        meta: recipe, seed, data set fingerprint, measured budget, times and sha256.
        dataset: the clean data set that it was made from, if it is known: `uebench.craft` and
            `uebench.import_poison` set it, and `show` and `save` use it.

    Raises:
        ValueError: the images are not uint8 [n, c, h, w], there is not one label and one position
            per image, or a position is negative or occurs twice.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    meta: dict[str, Any] = field(default_factory=dict)
    dataset: Dataset | None = None

    def __post_init__(self) -> None:
        """Convert arrays and lists to tensors, and refuse those with another meaning."""
        images = as_images(self.images)
        object.__setattr__(self, "images", images)
        for name in ("labels", "index"):
            numbers = as_whole_numbers(getattr(self, name), len(images), name)
            if len(numbers) and numbers.min() < 0:
                raise ValueError(f"{name} must be counted from 0, got {numbers.min().item()}")
            object.__setattr__(self, name, numbers)
        positions, counts = self.index.unique(return_counts=True)
        if len(positions) < len(images):
            twice = positions[counts.argmax()].item()
            raise ValueError(f"index names training image {twice} twice; name each once")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        c, h, w = self.images.shape[1:]
        parts = [f"{len(self):,} images [{c}, {h}, {w}]"]
        if "linf_max" in self.meta:
            parts.append(f"no value changed by more than {self.meta['linf_max']:g}/255")
        of = f" of {self.dataset.name}" if self.dataset is not None else ""
        return (
            " ".join(filter(None, ("Poison", self.meta.get("spec")))) + f"{of}: {', '.join(parts)}"
        )

    def _repr_html_(self) -> str:
        """Return a summary with pictures, which notebooks display."""
        picture = png_bytes(self.picture() if len(self) else Image.new("RGB", (1, 1)))
        return pictures_html(f"{self}", [("clean images, perturbation, poisoned images", picture)])

    def picture(self, dataset: Dataset | None = None) -> Image.Image:
        """Return clean images, perturbation and poisoned images of a few classes, side by side.

        Where the clean data set is neither known nor given, the poisoned images alone are shown.

        Raises:
            PoisonError: the poison does not fit the data set.
        """
        clean = dataset or self.dataset
        if clean is None:
            names = tuple(str(label) for label in range(int(self.labels.max()) + 1))
            return samples(Split(self.images, self.labels, names))
        check_fits(self, clean.train, clean.name)
        return contact_sheet(self, clean, f"{self.meta.get('spec', 'a poison')} on {clean.name}")

    def show(self, dataset: Dataset | None = None) -> None:
        """Show `picture` in the notebook or, outside of one, in the system's viewer of images.

        Raises:
            UserError: there is neither a notebook nor a display.
        """
        show_picture(self.picture(dataset), "poison.picture()")

    def save(self, path: Path | str, dataset: Dataset | None = None) -> None:
        """Write the poison as .npz, .safetensors or, under any other name, a folder of PNG files.

        Its record, `meta.json`, lies next to it, as `uebench craft` writes it.

        Raises:
            PoisonError: something is there already, it cannot be written, or it is not known which
                data set the poison was made from.
        """
        clean = dataset or self.dataset
        if clean is None:
            raise PoisonError(
                "a saved poison names the data set that it was made from, which this one does not "
                "know; give it, as in poison.save(path, dataset)"
            )
        check_fits(self, clean.train, clean.name)
        check_target(Path(path), "path")
        write_poison(self, Path(path), clean)


def tensors_sha256(poison: Poison) -> str:
    """Return the sha256 of a poison's images, labels and index, in this order."""
    digest = hashlib.sha256()
    for tensor in (poison.images, poison.labels, poison.index):
        add_bytes(digest, tensor)
    return digest.hexdigest()


def n_changed(clean: UInt8[Tensor, "n c h w"], images: UInt8[Tensor, "n c h w"]) -> int:
    """Return the number of images that differ from the clean ones in any pixel."""
    if images is clean:
        return 0
    return sum(int((clean[p] != images[p]).flatten(1).any(1).sum()) for p in chunks(clean))


def check_fits(poison: Poison, train: Split, name: str) -> None:
    """Check that a poison can replace images of a training set.

    Args:
        poison: the poison.
        train: the clean training set.
        name: the name of the data set, for the message.

    Raises:
        PoisonError: it has no images, images of another size, or positions that do not exist.
    """
    remedy = "give the data set that it was made from"
    if not len(poison):
        raise PoisonError("the poison has no images; it would poison nothing")
    if poison.images.shape[1:] != train.images.shape[1:]:
        raise PoisonError(
            f"the poison's images are {list(poison.images.shape[1:])}, those of {name} "
            f"{list(train.images.shape[1:])}; {remedy}"
        )
    if (high := int(poison.index.max())) >= len(train):
        raise PoisonError(
            f"the poison's index reaches {high}, {name} has {len(train)} training images; {remedy}"
        )


def poisoned(train: Split, poison: Poison, chosen: Bool[Tensor, " n"] | None = None) -> Split:
    """Return the training set in which the images at `chosen`, or all, are those of the poison.

    Images that the poison does not cover stay clean; labels and order do not change. A poison that
    covers all images is not copied.
    """
    rows = torch.arange(len(poison)) if chosen is None else chosen[poison.index].nonzero()[:, 0]
    if torch.equal(poison.index[rows], torch.arange(len(train))):
        return train.with_images(poison.images)
    images = copied(train.images)
    for part in chunks(poison.images[:1].expand(len(rows), -1, -1, -1)):
        images[poison.index[rows[part]]] = poison.images[rows[part]]
    return train.with_images(images)
