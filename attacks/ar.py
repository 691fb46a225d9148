"""AR, autoregressive perturbations: each class's noise obeys a linear recurrence of its own.

Source: Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning", NeurIPS 2022,
arXiv:2206.03693. The search for recurrences and the matched filter follow their text and code.
Departs from it: a class's noise is one product of its random starts with the recurrence's response
to each value of a start, in which it is linear; images of small classes take a pixel's step of the
recurrence together, each with its kernel; the authors' code calls a convolution for each pixel of
each image. The candidates of a chunk share their trial starts; the search keeps what it found and
relaxes its threshold in recorded steps when its draws run out. As in their code kernels are
searched at 32 px, whatever the images' size, though noise that is bounded there may grow over a
larger image: at 96 px some classes, at 224 px half of them, have most of it in one corner.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from uebench import Attack, Auto, Facts, Fraction255, Option, Run, Split, UserError, attack, auto
from uebench.learn.pgd import lengths

SEARCH_SIDE, SEARCH_CROP = 36, 4
"""Side of the grid on which kernels are judged, and the rows and columns that are cropped from it.
The bound and the thresholds only hold for this grid."""
BOUND = 50.0
"""Largest l2 norm of an unscaled crop for a recurrence to count as bounded."""
TRIALS = 3
"""Random starts on which a recurrence must stay bounded."""
MOST_KERNEL_BYTES = 2**26
"""Largest file of kernels, packed or unpacked."""
GRID_VALUES = 2**22
"""Most values of the grids that are continued together: 1,078 images at 32 px, 27 at 224 px."""
RESPONSE_VALUES = 2**22
"""Most response values of a class for which the matrix product is faster: 64 px, not 96."""
PRODUCT = 128
"""Images per matrix product on a CPU: as many as fit the cache of a core."""
BLOCK = 32
"""Matched filters that are tried on a pattern at a time."""
CANDIDATES = 8192
"""Candidates drawn at a time."""


@attack("ar", title="AR", source="arXiv:2206.03693", family="surrogate-free")
class AR(Attack):
    """Autoregressive noise from searched 3x3 kernels, one per class and channel."""

    version: ClassVar[int] = 2
    uncounted = "its search for kernels"
    norm: Literal["l2"] = "l2"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=100), Auto()] = auto()
    """l2 norm of each perturbation in the pixel range [0, 1]; auto: 1.0 at 32 px, 3.0 at 96 px,
    else in proportion to the square root of the number of values."""
    crop: Annotated[int, Field(ge=2, le=64), Auto()] = auto()
    """First rows and columns that are cut away; auto: 4, or 2 from 128 px on."""
    threshold: Annotated[float, Field(ge=0, le=1e3), Auto(), Option(variant=True)] = auto()
    """Least response of every earlier class's matched filter to a new class's noise at 32 px; auto:
    10 for up to 10 classes, else 3."""
    draws: Annotated[int, Field(ge=1000, le=10**9), Option(quick=10_000, variant=True)] = 1_000_000
    """Candidates drawn before the threshold is relaxed by a fifth."""
    kernels: Annotated[str, Option(variant=True)] = ""
    """A file of published kernels, float [k, c, 3, 3]: .npy, .npz, .safetensors or .pt; empty:
    search them."""
    kernels_sha256: str = ""
    """Content of that file, filled in when a cell is planned."""

    def recipe(self) -> dict[str, Any]:
        """Return the options without the path of the kernels, whose content counts.

        Kernels from a file leave the search's options without a meaning.
        """
        idle = {"kernels", "threshold", "draws"} if self.kernels else {"kernels"}
        return {k: v for k, v in self.options().items() if k not in idle}

    def resolve(self, facts: Facts) -> AR:
        """Return the attack with budget, crop and threshold filled in.

        Raises:
            UserError: a file of kernels cannot be read, or does not fit the data set.
        """
        c, h, w = facts.shape
        filled = self.fill_auto(
            eps=round(math.sqrt(c * h * w / 3072), 3),
            crop=2 if max(h, w) >= 128 else 4,
            threshold=10.0 if facts.n_classes <= 10 else 3.0,
        )
        if not filled.kernels:
            return filled
        kernels = read_kernels(Path(filled.kernels), facts.n_classes, facts.shape)
        sha256 = hashlib.sha256(kernels.numpy().tobytes()).hexdigest()
        return filled.with_options(kernels_sha256=sha256)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return each image's noise: its class's recurrence from a start of its own."""
        kernels = self._kernels(data, run).permute(0, 2, 3, 1).unsqueeze(-1).contiguous()
        delta = run.zeros(len(data), *data.shape)
        for part, noise in self._unscaled(kernels, data, run):
            length = lengths(noise)
            if not length.isfinite().all():  # the squares of large images overflow float32
                noise = noise / noise.abs().amax((1, 2, 3), keepdim=True)
                length = lengths(noise)
            noise = noise * (self.eps / length)
            delta[part.to(delta.device)] = noise.to(delta.device)
        return delta

    def _unscaled(
        self, kernels: Float[Tensor, "k 3 3 c 1"], data: Split, run: Run
    ) -> Iterator[tuple[Int[Tensor, " m"], Float[Tensor, "m c h w"]]]:
        """Yield the indices of some images with their noise, until every image was covered.

        A class with more images than free values of a start is computed as one matrix product;
        smaller ones step through the recurrence.
        """
        c, h, w = data.shape
        rows, columns, device = h + self.crop, w + self.crop, run.rng.device
        free = free_values(rows, columns)
        grids = max(1, GRID_VALUES // (c * rows * columns))
        products = PRODUCT if device.type == "cpu" else grids
        by_step = torch.ones_like(data.labels, dtype=torch.bool)
        large = [label for label, size in enumerate(data.class_sizes) if size > free]
        for label in large if c * free * h * w <= RESPONSE_VALUES else []:
            mine = data.labels == label
            by_step &= ~mine
            responses = responses_of(kernels[label], rows, columns, self.crop)
            for part in mine.nonzero().squeeze(1).split(products):
                starts = torch.randn(c, len(part), free, generator=run.rng, device=device)
                noise = torch.bmm(starts, responses).transpose(0, 1)
                yield part, noise.reshape(-1, c, h, w)
        for part in by_step.nonzero().squeeze(1).split(grids):
            kernel = kernels[data.labels[part], ..., 0].permute(1, 2, 3, 0).contiguous()
            starts = torch.randn(free, c, len(part), generator=run.rng, device=device)
            yield part, pattern(kernel, starts, rows, columns, self.crop)

    def _kernels(self, data: Split, run: Run) -> Float[Tensor, "k c 3 3"]:
        """Return each class's kernels: from the file, from the store, or from a new search."""
        if self.kernels:
            kernels = read_kernels(Path(self.kernels), data.n_classes, data.shape)
            if hashlib.sha256(kernels.numpy().tobytes()).hexdigest() != self.kernels_sha256:
                raise UserError(
                    f"ar: {self.kernels} was changed since the cell was planned; run again"
                )
            return kernels.to(run.device)
        search = run.kept(
            "ar kernels",
            {
                "classes": data.n_classes,
                "channels": data.shape[0],
                "threshold": self.threshold,
                "draws": self.draws,
                "version": self.version,
            },
            lambda fresh: self._search(data.n_classes, data.shape[0], fresh),
        )
        run.note(
            ar_threshold=round(search["threshold"].item(), 4), ar_draws=int(search["draws"].item())
        )
        return search["kernels"]

    def _search(self, n: int, c: int, run: Run) -> dict[str, Tensor]:
        """Return `n` sets of kernels [n, c, 3, 3] whose noise the others' filters respond to."""
        kernels: list[Tensor] = []
        waiting: list[tuple[Tensor, Tensor]] = []  # bounded, but too similar to an accepted one
        threshold, drawn, relax_at = self.threshold, 0, self.draws
        while len(kernels) < n:
            run.progress(len(kernels) / n, f"ar kernels {len(kernels)}/{n}")
            fresh = bounded(c, run.rng)
            drawn += CANDIDATES
            if drawn >= relax_at:
                threshold, relax_at = threshold * 0.8, drawn + self.draws
                fresh, waiting = waiting + fresh, []
            for kernel, pattern in fresh:
                if len(kernels) == n:
                    break
                if is_distinct(kernels, pattern, threshold):
                    kernels.append(kernel)
                elif len(waiting) < 20 * n:
                    waiting.append((kernel, pattern))
        return {
            "kernels": torch.stack(kernels),
            "threshold": torch.tensor(threshold),
            "draws": torch.tensor(drawn),
        }


def read_kernels(path: Path, k: int, shape: tuple[int, int, int]) -> Float[Tensor, "k c 3 3"]:
    """Return the kernels of a file, one set per class, and check that they are usable.

    One published set contains a kernel that is finite but useless: its entries sum to 2e7.

    Raises:
        UserError: it cannot be read, has the wrong shape, or a kernel does not sum to 1.
    """
    try:
        _check_size(path)
        kernels = torch.stack([torch.as_tensor(each).float() for each in _load(path)])
    except Exception as error:  # every reader has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"ar: {path} holds no readable kernels ({reason}); give float [k, c, 3, 3] as .npy, "
            ".npz, .safetensors or .pt"
        ) from None
    c = shape[0]
    if (
        kernels.dim() == 5 and kernels.shape[2] == 1
    ):  # the weight of a grouped convolution has this form
        kernels = kernels.squeeze(2)
    if kernels.dim() != 4 or kernels.shape[2:] != (3, 3) or kernels.shape[1] != c:
        raise UserError(
            f"ar: {path} holds {list(kernels.shape)} values; kernels are [k, {c}, 3, 3]"
        )
    if len(kernels) < k:
        raise UserError(f"ar: {path} has kernels for {len(kernels)} classes, {k} are needed")
    wrong = ((kernels[:k].sum((2, 3)) - 1).abs() > 1e-3).any(1) | (kernels[:k, :, 2, 2] != 0).any(1)
    if wrong.any() or not kernels[:k].isfinite().all():
        raise UserError(
            f"ar: {path}: the kernels of class {int(wrong.int().argmax())} do not sum to 1, or do "
            "not end in 0; such noise does not stay finite"
        )
    return kernels[:k].clone()


def _check_size(path: Path) -> None:
    """Refuse a file that, packed or unpacked, is larger than any set of kernels."""
    size = path.stat().st_size if path.is_file() else 0
    if not path.is_dir() and not path.is_file() and path.exists():
        raise UserError("it is not a file")
    if size and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(member.file_size for member in archive.infolist()))
    if size > MOST_KERNEL_BYTES:
        raise UserError(f"it holds {size:,} bytes, at most {MOST_KERNEL_BYTES:,} are read")


def _load(path: Path) -> Any:
    """Return the only tensor of a file, the one called `kernels`, or the list of its tensors."""
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    content: Any
    if path.suffix == ".npz":
        # NumPy does not close a file that it opened itself and cannot read
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            content = dict(file)
    elif path.suffix == ".safetensors":
        content = load_file(path)
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict):
        return content["kernels"] if "kernels" in content else next(iter(content.values()))
    return content


def is_distinct(
    kernels: list[Float[Tensor, "c 3 3"]], pattern: Float[Tensor, "c h w"], threshold: float
) -> bool:
    """Return whether the matched filter of every accepted kernel responds to a pattern.

    Filters are tried in blocks, because most patterns already fail at one of the first.
    """
    return all(
        bool((matched(torch.stack(kernels[i : i + BLOCK]), pattern[None]) >= threshold).all())
        for i in range(0, len(kernels), BLOCK)
    )


def bounded(c: int, rng: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Draw `CANDIDATES` kernel sets [c, 3, 3]; return the bounded ones, each with a unit pattern.

    A set is bounded when the crop's l2 norm over all channels stays at most 50 in three trials.
    """
    device, rows, columns, crop = rng.device, SEARCH_SIDE, SEARCH_SIDE, SEARCH_CROP
    kernels = torch.randn(3, 3, c, CANDIDATES, generator=rng, device=device)
    kernels[2, 2] = 0
    kernels = kernels / kernels.sum((0, 1))
    starts = torch.randn(TRIALS, rows, columns, c, 1, generator=rng, device=device)
    for start in starts:
        kernels = kernels[..., stays_bounded(kernels, start, crop)]
    grid = starts[0].expand(-1, -1, -1, kernels.shape[-1]).clone()
    for row in range(2, rows):
        continue_row(grid, kernels, row)
    patterns = grid[crop:, crop:].permute(3, 2, 0, 1)
    patterns = patterns / patterns.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return list(zip(kernels.permute(3, 2, 0, 1), patterns, strict=True))


def stays_bounded(
    kernels: Float[Tensor, "3 3 c m"], start: Float[Tensor, "i j c 1"], crop: int
) -> Bool[Tensor, " m"]:
    """Return which kernel sets keep the norm of the crop within the bound from this start.

    Only two rows are kept, and a set is dropped at the row where its norm passes the bound.
    """
    alive = torch.arange(kernels.shape[-1], device=kernels.device)
    window = start[:3].expand(-1, -1, -1, len(alive)).clone()
    norm = torch.zeros(len(alive), device=kernels.device)
    for row in range(2, len(start)):
        window[2] = start[row]
        continue_row(window, kernels[..., alive], 2)
        if row >= crop:
            norm += window[2, crop:].square().sum((0, 1))
            keep = (norm <= BOUND**2).nonzero().squeeze(1)
            if len(keep) < 0.9 * len(alive) or row == len(start) - 1:
                alive, norm, window = alive[keep], norm[keep], window[..., keep]
        window[:2] = window[1:].clone()
    survivors = torch.zeros(kernels.shape[-1], dtype=torch.bool, device=kernels.device)
    survivors[alive] = True
    return survivors


def continue_row(
    grid: Float[Tensor, "i j *#batch"], kernels: Float[Tensor, "3 3 *#batch"], row: int
) -> None:
    """Continue the recurrence by one row, in place: pixels first, so that each is contiguous."""
    columns = grid.shape[1]
    above = torch.zeros_like(grid[row, 2:])
    for i in range(2):
        for j in range(3):
            above.addcmul_(grid[row - 2 + i, j : columns - 2 + j], kernels[i, j])
    pixels, waiting = grid[row].unbind(), above.unbind()
    second, first = kernels[2, 0], kernels[2, 1]
    for column in range(2, columns):
        pixel = waiting[column - 2].addcmul_(pixels[column - 2], second)
        pixels[column].copy_(pixel.addcmul_(pixels[column - 1], first))


def free_values(rows: int, columns: int) -> int:
    """Return how many values of a start have an effect: its first two rows and columns."""
    return 2 * (rows + columns) - 4


def pattern(
    kernels: Float[Tensor, "3 3 c #n"],
    starts: Float[Tensor, "free c n"],
    rows: int,
    columns: int,
    crop: int,
) -> Float[Tensor, "n c h w"]:
    """Return each image's recurrence from its start, unscaled, cropped.

    A start is the first two rows, then the rest of the first two columns. All images take a pixel's
    step together, each with its own kernel, or all with the only one.
    """
    c, n = starts.shape[1:]
    grid = torch.empty(rows, columns, c, n, device=starts.device)
    grid[:2] = starts[: 2 * columns].view(2, columns, c, n)
    grid[2:, :2] = starts[2 * columns :].view(rows - 2, 2, c, n)
    for row in range(2, rows):
        continue_row(grid, kernels, row)
    return grid[crop:, crop:].permute(3, 2, 0, 1)


def responses_of(
    kernel: Float[Tensor, "3 3 c 1"], rows: int, columns: int, crop: int
) -> Float[Tensor, "c free p"]:
    """Return what each free value of a start adds to each pixel of the crop, channel by channel.

    The recurrence is linear in its start, so these responses determine it.
    """
    free, c = free_values(rows, columns), kernel.shape[2]
    units = torch.eye(free, device=kernel.device).unsqueeze(1).expand(free, c, free).contiguous()
    responses = pattern(kernel, units, rows, columns, crop)
    return responses.flatten(2).transpose(0, 1).contiguous()


def matched(
    kernels: Float[Tensor, "m c 3 3"], patterns: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n m"]:
    """Return how strongly each class's matched filter responds to each pattern.

    The filter is the kernel with -1 last, so its output is zero on the class's own noise; channels
    are summed, rectified and summed over the image.
    """
    filters = kernels.clone()
    filters[..., 2, 2] = -1
    return F.conv2d(patterns, filters).relu().sum((2, 3))
