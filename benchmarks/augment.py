"""Speed of UEraser's augmentation: kornia's public pipeline against ours, compared in one run.

The peer is `AugmentationSequential(RandomPlasmaBrightness, RandomPlasmaContrast,
RandomChannelShuffle, TrivialAugment)` of the installed kornia, composed as UEraser's authors do,
with the numbers of Table 13. Ours is `Policy` with the behaviour of the installed kornia, once with
one TrivialAugment operation per batch, as in kornia, and once with one per image. The last rows are
the augmentations that AAP and TAP search through, with their gradients. One thread, one batch,
several alternating rounds; ratios are taken within a round.

    python benchmarks/augment.py [--batch 128] [--side 32] [--rounds 9] [--device cpu]
"""

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable

import kornia
import torch
from torch import Tensor

from uebench.augment import Policy, contrastive, crop_flip, shift_flip
from uebench.augment.color import Kornia

CALLS = {"cpu": 24, "cuda": 96}
"""Calls per round: enough for all 12 operations to occur when each batch draws one of them."""


def seconds(call: Callable[[], object], calls: int, cuda: bool) -> float:
    """Return the mean time of a call over `calls` calls."""
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def back(augment: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the gradient of the sum of all augmented pixels, which a search for noise needs."""
    images = images.detach().requires_grad_()
    return torch.autograd.grad(augment(images).sum(), images)[0]


def main() -> None:
    """Run the rounds and print one row per implementation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # A training step frees a block as large as this one. glibc then keeps freed memory, so that
    # neither side pays for new pages.
    torch.zeros(31 * 2**20, dtype=torch.uint8)
    device = torch.device(options.device)
    rng = torch.Generator(device).manual_seed(0)
    images = torch.rand(options.batch, 3, options.side, options.side, generator=rng, device=device)
    levels = (images * 255).byte()
    behaviour: Kornia = "0.6" if kornia.__version__ < "0.9" else "0.9"
    peer = Policy(kornia=behaviour, draw="batch", engine="kornia")
    contenders: dict[str, Callable[[], object]] = {
        f"kornia {kornia.__version__}": lambda: peer(images, rng),
    }
    by_batch, by_image = Policy(kornia=behaviour, draw="batch"), Policy(kornia=behaviour)
    contenders["uebench draw=batch"] = lambda: by_batch(images, rng)
    contenders["uebench draw=image"] = lambda: by_image(images, rng)
    paper = Policy()
    contenders["uebench kornia=0.6 draw=image"] = lambda: paper(images, rng)
    contenders["crop_flip uint8"] = lambda: crop_flip(levels, rng)
    contenders["contrastive, and back"] = lambda: back(lambda x: contrastive(x, rng, 0.4), images)
    contenders["shift_flip, and back"] = lambda: back(lambda x: shift_flip(x, rng), images)

    calls = CALLS[device.type]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        seconds(call, 3, device.type == "cuda")
    for _ in range(options.rounds):
        for name, call in contenders.items():
            times[name].append(seconds(call, calls, device.type == "cuda"))

    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, kornia {kornia.__version__}, {machine}, 1 thread")
    print(
        f"batch {options.batch} of 3x{options.side}x{options.side}, "
        f"{options.rounds} rounds of {calls} calls"
    )
    base = next(iter(times.values()))
    print(f"{'':32}{'us/image':>10}{'images/s':>12}{'ratio':>8}  (min to max over rounds)")
    for name, taken in times.items():
        ratios = [slow / fast for slow, fast in zip(base, taken, strict=True)]
        middle = statistics.median(taken) / options.batch
        print(
            f"{name:32}{middle * 1e6:10.1f}{1 / middle:12,.0f}{statistics.median(ratios):8.1f}"
            f"  ({min(ratios):.1f} to {max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
