"""How long AR noise takes: the plain recurrence of public code against one matrix a class.

    python benchmarks/crafting.py [--images 50000] [--plain 8]

Both give the same noise from the same start values (the largest difference is printed). The plain
way is timed on a few images and counted per image; kernels are searched before and timed apart.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from uebench import Run, Split
from uebench.attacks.ar import AR, bounded, response
from uebench.registry import build_attack

SIDE, CROP = 32, 4


def plain(kernels: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return one image's noise, pixel by pixel as public code computes it: [c, 32, 32]."""
    grid = start.clone()
    for i in range(2, grid.shape[1]):
        for j in range(2, grid.shape[2]):
            window = grid[:, i - 2 : i + 1, j - 2 : j + 1].clone()
            window[:, 2, 2] = 0
            grid[:, i, j] = (kernels * window).sum((1, 2))
    return grid[:, CROP:, CROP:]


def main() -> None:
    """Print the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--plain", type=int, default=8, help="images for the plain way")
    args = parser.parse_args()
    torch.set_num_threads(1)

    rng = torch.Generator().manual_seed(0)
    kernel = next(k for _ in range(9) for k, _ in bounded(3, SIDE + CROP, SIDE + CROP, CROP, rng))
    starts = torch.randn(args.plain, 3, SIDE + CROP, SIDE + CROP, generator=rng)
    began = time.perf_counter()
    slow = torch.stack([plain(kernel, start) for start in starts])
    plain_s = (time.perf_counter() - began) / args.plain
    matrix = response(kernel, SIDE + CROP, SIDE + CROP, CROP)
    on_border = torch.zeros(SIDE + CROP, SIDE + CROP, dtype=torch.bool)
    on_border[:2] = True
    on_border[:, :2] = True
    fast = torch.einsum("ncb,cbp->ncp", starts[:, :, on_border], matrix)
    apart = (fast.reshape(slow.shape) - slow).abs().max() / slow.abs().max()

    labels = torch.arange(args.images) % 10
    blank = torch.zeros(1, dtype=torch.uint8).expand(args.images, 3, SIDE, SIDE)
    data = Split(blank, labels, tuple("0123456789"))
    attack = build_attack("ar[eps=1,crop=4,threshold=10]")
    assert isinstance(attack, AR)
    run = Run(shape=(3, SIDE, SIDE), n_classes=10, seed=0)
    began = time.perf_counter()
    found = attack._search(10, data.shape, run)
    search_s = time.perf_counter() - began
    run.kept = lambda *_: found  # type: ignore[assignment, method-assign]
    began = time.perf_counter()
    attack.perturb(data, run)
    ours_s = time.perf_counter() - began
    print(f"plain recurrence       {plain_s * 1e3:9.1f} ms an image")
    each_ms = ours_s / args.images * 1e3
    print(f"one matrix a class     {each_ms:9.4f} ms an image, {ours_s:.1f} s in all")
    print(f"ratio                  {plain_s / (ours_s / args.images):9.0f}")
    print(f"largest difference     {apart:9.1e} of the largest value")
    print(f"search for 10 kernels  {search_s:9.1f} s, kept in the store")


if __name__ == "__main__":
    main()
