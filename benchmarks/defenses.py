"""Speed of the defenses: public ways against ours, side by side in one run.

Each part prints how long the peer takes and the ratio to ours, taken within a round: median, lowest
and highest of several rounds in turn. Peers:

- augment: kornia's `AugmentationSequential` as UEraser's authors compose it, one batch.
- ueraser: a training step with K = 5 draws by that pipeline on a tiled batch, the largest loss of
  each image, and backward through all copies; fp32, NCHW.
- iss: JPEG of every image by `Image.save` and `Image.open`, again in every epoch, one process; ours
  is made once for `--epochs` epochs.
- at: PGD-7 with `loss.backward()` and an update on the adversarial points; fp32, NCHW.
- standard: a training step; fp32, NCHW.

Ours is what a cell runs on this machine: its precision, channels-last, fused SGD on a GPU. On a CPU
both have one thread, as cells that run side by side do.

    python benchmarks/defenses.py [augment ueraser iss at standard] [--arch resnet9[width=8]]
        [--batch 128] [--rounds 5] [--device auto] [--epochs 12]
"""

import argparse
import io
import platform
import statistics
import time
import warnings
from collections.abc import Callable

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from uebench import Facts, Run
from uebench.augment import Policy, jpeg
from uebench.augment.color import Kornia
from uebench.frontend import usable_devices
from uebench.models import build_network
from uebench.plan import resolve_precision
from uebench.registry import build_defense

BEHAVIOUR: Kornia = "0.6" if kornia.__version__ < "0.9" else "0.9"
PARTS = ("augment", "ueraser", "iss", "at", "standard")
K = 5


def compare(title: str, calls: int, contenders: dict[str, Callable[[], object]]) -> None:
    """Time the contenders in turn and print a row each; the first is the peer."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        _seconds(call, 1)
    for _ in range(options.rounds):
        for name, call in contenders.items():
            times[name].append(_seconds(call, calls))
    base = next(iter(times.values()))
    print(f"\n{title}")
    for name, taken in times.items():
        ratios = [slow / fast for slow, fast in zip(base, taken, strict=True)]
        print(
            f"  {name:34}{statistics.median(taken) * 1e3:10.1f} ms"
            f"{statistics.median(ratios):8.2f}x  ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def _seconds(call: Callable[[], object], calls: int) -> float:
    """Return the mean time of a call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def augment() -> None:
    """Compare the augmentation alone, for a batch and for the K copies of one."""
    peer = Policy(kornia=BEHAVIOUR, draw="batch", engine="kornia")
    for size in (options.batch, K * options.batch):
        images = torch.rand(size, 3, 32, 32, device=device)
        ours = {
            f"uebench draw={draw}": Policy(kornia=BEHAVIOUR, draw=draw)
            for draw in ("batch", "image")
        }
        compare(
            f"UEraser's augmentation of {size} images",
            24,  # enough for all of the 12 operations to come up where a batch draws one
            {
                "kornia": lambda x=images: peer(x, rng),
                **{name: lambda x=images, p=p: p(x, rng) for name, p in ours.items()},
            },
        )


def plain_step(loss: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
    """Return a training step as tutorials write it: fp32, NCHW, SGD."""
    model = build_network(options.arch, 10, (3, 32, 32), 0).to(device)
    model = model.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()

    return step


def our_step(spec: str, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a training step of a defense, as the trainer takes it."""
    defense = build_defense(spec).resolve(Facts("cifar10", 10, (3, 32, 32), 200, options.arch))
    run = Run(shape=(3, 32, 32), n_classes=10, seed=0, device=device, precision=precision)
    model = run.network(options.arch).train()
    optimizer = torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, fused=device.type == "cuda"
    )
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with run.autocast():
            loss = defense.loss(model, images, labels, run)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def batch() -> tuple[Tensor, Tensor]:
    """Return images in [0, 1] and labels."""
    return (
        torch.rand(options.batch, 3, 32, 32, device=device),
        torch.randint(10, (options.batch,), device=device),
    )


def ueraser() -> None:
    """Compare a step on the hardest of K draws."""
    images, labels = batch()
    pipeline = Policy(kornia=BEHAVIOUR, draw="batch", engine="kornia")

    def loss(model: nn.Module) -> Tensor:
        copies = pipeline(images.repeat(K, 1, 1, 1), rng)
        losses = F.cross_entropy(model(copies), labels.repeat(K), reduction="none")
        return losses.view(K, -1).amax(0).mean()

    ours = f"ueraser[kornia={BEHAVIOUR},repeats={K}"
    compare(
        f"UEraser's step, K = {K}",
        3,
        {
            "kornia, backward through all": plain_step(loss),
            "uebench select=full": our_step(f"{ours},select=full]", images, labels),
            "uebench select=no_grad": our_step(f"{ours},select=no_grad]", images, labels),
        },
    )


def iss() -> None:
    """Compare JPEG in every epoch with JPEG once."""
    n = 2000
    noise = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8)
    images = F.interpolate(noise.float(), scale_factor=4, mode="bilinear").to(torch.uint8)
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()

    def public() -> None:
        for array in arrays:
            file = io.BytesIO()
            Image.fromarray(array).save(file, "JPEG", quality=10)
            np.array(Image.open(file).convert("RGB"))

    compare(
        f"JPEG of {n} images, once each",
        1,
        {"Image.save, Image.open": public, "uebench": lambda: jpeg(images, 10)},
    )
    once = statistics.median(_seconds(lambda: jpeg(images, 10), 1) for _ in range(options.rounds))
    again = statistics.median(_seconds(public, 1) for _ in range(options.rounds))
    print(
        f"  uebench {n / once:,.0f} images/s: 50,000 in {50_000 * once / n:.0f} s, once; over "
        f"{options.epochs} epochs {options.epochs * again / once:.0f}x less time in JPEG"
    )


def at() -> None:
    """Compare a step of adversarial training."""
    images, labels = batch()
    radius = 4 / 255

    def loss(model: nn.Module) -> Tensor:
        model.eval()
        point = images + torch.empty_like(images).uniform_(-radius, radius)
        for _ in range(7):
            point = point.detach().requires_grad_()
            model.zero_grad()
            F.cross_entropy(model(point), labels).backward()
            assert point.grad is not None
            point = point.detach() + radius / 5 * point.grad.sign()
            point = torch.min(torch.max(point, images - radius), images + radius).clamp(0, 1)
        model.train()
        return F.cross_entropy(model(point), labels)

    compare(
        "Adversarial training's step, PGD-7",
        2,
        {"fp32 NCHW": plain_step(loss), "uebench": our_step("at", images, labels)},
    )


def standard() -> None:
    """Compare a plain training step."""
    images, labels = batch()
    peer = plain_step(lambda model: F.cross_entropy(model(images), labels))
    compare(
        "Training step", 8, {"fp32 NCHW": peer, "uebench": our_step("standard", images, labels)}
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--arch", default="resnet9[width=8]")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12, help="over which ISS is prepared once")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    warnings.simplefilter("ignore")
    # As any training step does: glibc then keeps freed memory, and nobody pays for new pages.
    torch.zeros(31 * 2**20, dtype=torch.uint8)
    device = torch.device(usable_devices(options.device)[0])
    if device.type == "cpu":
        torch.set_num_threads(1)
    precision = resolve_precision("auto", str(device))
    rng = torch.Generator(device).manual_seed(0)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(
        f"torch {torch.__version__}, kornia {kornia.__version__}, {machine}, {options.arch}, batch "
        f"{options.batch}, ours in {precision}, {options.rounds} rounds"
    )
    for part in options.parts:
        globals()[part]()
