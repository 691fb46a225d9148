"""Speed of the attacks: straightforward public code against ours, compared in one run.

Each part prints the time of both implementations per image, and their ratio within a round: the
median, lowest and highest of several alternating rounds. The straightforward implementations:

- ar: one convolution call per pixel of each image, which is how the authors' code generates noise.
- lsp: `make_classification`, then `numpy.repeat` and division by the norms, in float64 and for all
  images at once, as the authors' code builds it.
- em: a round of the search with the noise as a list of tensors, one per image, stacked for every
  batch and copied back, in float32 and NCHW; parameters are frozen in the steps of the noise, as
  in the authors' code.

Ours is what `uebench craft` runs on this machine, in the precision that it chooses. On a CPU both
use one thread.

    python benchmarks/attacks.py [ar lsp em] [--images 50000] [--arch resnet8] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import make_classification
from steps import machine_name
from torch import Tensor, nn

from uebench import Attack, Facts, Run, Split
from uebench.attacks.ar import AR, bounded
from uebench.cells.plan import resolve_precision
from uebench.methods.registry import build_attack
from uebench.models import build_network

SIDE, CROP, CLASSES = 32, 4, 10
PARTS = ("ar", "lsp", "em")


def compare(title: str, plain: Callable[[], int], ours: Callable[[], int]) -> None:
    """Time both ways in alternation and print one row each; each call returns its image count."""
    times: dict[str, list[float]] = {"plain way": [], "uebench": []}
    for _ in range(options.rounds):
        for name, call in (("plain way", plain), ("uebench", ours)):
            start = time.perf_counter()
            images = call()
            times[name].append((time.perf_counter() - start) / images)
    print(f"\n{title}")
    for name, taken in times.items():
        ratios = [slow / fast for slow, fast in zip(times["plain way"], taken, strict=True)]
        print(
            f"  {name:12}{statistics.median(taken) * 1e6:12.1f} us per image"
            f"{statistics.median(ratios):9.1f}x  ({min(ratios):.1f} to {max(ratios):.1f})",
            flush=True,
        )


def blank(n: int) -> Split:
    """Return n random images whose labels cycle through the classes."""
    images = torch.randint(0, 256, (n, 3, SIDE, SIDE), dtype=torch.uint8)
    return Split(images, torch.arange(n) % CLASSES, tuple("0123456789"))


def resolved(spec: str) -> Attack:
    """Return an attack with all its options resolved for 32 px images."""
    return build_attack(spec).resolve(Facts("bench", CLASSES, (3, SIDE, SIDE), 1, options.arch))


def new_run() -> Run:
    """Return a run in this machine's precision."""
    precision = resolve_precision("auto", "cpu")
    return Run(shape=(3, SIDE, SIDE), n_classes=CLASSES, seed=0, precision=precision)


def ar() -> None:
    """AR noise from given kernels, without the search for them."""
    rng = torch.Generator().manual_seed(0)
    drawn: list[Tensor] = []
    while len(drawn) < CLASSES:
        drawn += [kernel for kernel, _ in bounded(3, rng)]
    kernels = torch.stack(drawn[:CLASSES])
    data = blank(options.images)
    attack = resolved("ar")
    assert isinstance(attack, AR)
    run = new_run()
    searched = {"kernels": kernels, "threshold": torch.tensor(0.0), "draws": torch.tensor(0)}
    run.kept = lambda *_: searched  # type: ignore[method-assign]

    def plain() -> int:
        weight = kernels[0].unsqueeze(1)
        for _ in range(2):
            grid = torch.randn(1, 3, SIDE + CROP, SIDE + CROP)
            for i in range(2, SIDE + CROP):
                for j in range(2, SIDE + CROP):
                    window = grid[:, :, i - 2 : i + 1, j - 2 : j + 1]
                    grid[:, :, i, j] = F.conv2d(window, weight, groups=3)[:, :, 0, 0]
            noise = grid[0, :, CROP:, CROP:]
            noise = noise / noise.norm()
        return 2

    def ours() -> int:
        attack.perturb(data, run)
        return len(data)

    compare(f"AR noise, {options.images:,} images (the plain way: 2)", plain, ours)


def lsp() -> None:
    """LSP noise, including the drawing of its samples."""
    n: int = min(options.images, 10_000)
    data, attack = blank(n), resolved("lsp")

    def plain() -> int:
        points, _ = make_classification(
            n_samples=n,
            n_features=48,
            n_informative=48,
            n_redundant=0,
            n_classes=CLASSES,
            n_clusters_per_class=1,
            class_sep=10.0,
            flip_y=0,
        )
        noise = points.reshape(n, 4, 4, 3).repeat(8, axis=1).repeat(8, axis=2)
        norms = np.linalg.norm(noise.reshape(n, -1), axis=1).reshape(n, 1, 1, 1)
        noise = noise / norms * (6 / 255 * np.sqrt(noise[0].size))
        torch.from_numpy(noise.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
        return n

    def ours() -> int:
        attack.perturb(data, new_run())
        return n

    compare(f"LSP noise, {n:,} images", plain, ours)


def em() -> None:
    """One round of EM's search: 2 steps of the network and 20 of the noise on up to 512 images."""
    n: int = min(options.images, 512)
    data = blank(n)
    attack = resolved(f"em[rounds=1,train_steps=2,batch_size={n},stop_accuracy=1.0]")

    def plain() -> int:
        model = build_network(options.arch, CLASSES, (3, SIDE, SIDE), 0)
        model = model.to(memory_format=torch.contiguous_format)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        noise = [torch.zeros(3, SIDE, SIDE) for _ in range(n)]
        images, labels = data.images.float() / 255, data.labels
        for _ in range(2):
            model.train()
            delta = torch.stack([noise[i] for i in range(n)])
            loss = F.cross_entropy(model(images + delta), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad = False
        delta = torch.stack([noise[i] for i in range(n)])
        for _ in range(20):
            point = (images + delta).clone().requires_grad_(True)
            F.cross_entropy(model(point), labels).backward()
            assert point.grad is not None
            delta = (delta - 0.8 / 255 * point.grad.sign()).clamp(-8 / 255, 8 / 255)
            delta = (images + delta).clamp(0, 1) - images
        for i in range(n):
            noise[i] = delta[i].clone()
        model((images + torch.stack(noise)).clamp(0, 1)).argmax(1)
        return n

    def ours() -> int:
        attack.perturb(data, new_run())
        return n

    compare(f"A round of EM, {n} images, {options.arch}", plain, ours)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="ar, lsp, em; all by default")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    precision = resolve_precision("auto", "cpu")
    name = machine_name(torch.device("cpu"))
    print(f"{name}, torch {torch.__version__}, one thread, ours in {precision}")
    if wrong := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {min(wrong)}; the parts are ar, lsp and em")
    for part in options.parts or PARTS:
        {"ar": ar, "lsp": lsp, "em": em}[part]()
