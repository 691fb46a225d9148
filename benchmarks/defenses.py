"""Speed of the defenses: public implementations against ours, compared in one run.

Each part prints the time of the public implementation and the ratio to ours within a round: the
median, lowest and highest of several alternating rounds. The public implementations:

- augment: kornia's `AugmentationSequential` as UEraser's authors compose it, one batch.
- ueraser: a training step with K = 5 draws by that pipeline on a tiled batch, the largest loss of
  each image, and backward through all copies; fp32, NCHW.
- iss: JPEG of every image by `Image.save` and `Image.open`, repeated in every epoch, in one
  process; ours compresses each image once for all `--epochs` epochs.
- at: PGD-7 with gradients with respect to the images only, then an update on its result; fp32,
  NCHW.
- standard: a training step; fp32, NCHW.

Ours is what a cell runs on this machine: in the precision that it chooses, channels-last, with
fused SGD on a GPU. On a CPU both use one thread, as cells that run at the same time do.

    python benchmarks/defenses.py [augment ueraser iss at standard] [--arch resnet9[width=8]]
        [--batch 128] [--rounds 5] [--device auto] [--epochs 12]
"""

import argparse
import io
import statistics
import warnings
from functools import partial

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from steps import Bench, adversarial_loss, installed_behaviour, kornia_loss, machine_name

from uebench.augment import Policy, jpeg
from uebench.cells.plan import resolve_precision
from uebench.execute.devices import usable_devices

BEHAVIOUR = installed_behaviour()
PARTS = ("augment", "ueraser", "iss", "at", "standard")
K = 5


def augment() -> None:
    """Compare the augmentation on its own, for one batch and for K copies of a batch."""
    peer = Policy(kornia=BEHAVIOUR, draw="batch", engine="kornia")
    for size in (options.batch, K * options.batch):
        images = torch.rand(size, 3, 32, 32, device=device)
        ours = {
            f"uebench draw={draw}": Policy(kornia=BEHAVIOUR, draw=draw)
            for draw in ("batch", "image")
        }
        bench.compare(
            f"UEraser's augmentation of {size} images",
            24,  # enough for all 12 operations to occur when each batch draws one
            {
                "kornia": partial(peer, images, rng),
                **{name: partial(policy, images, rng) for name, policy in ours.items()},
            },
        )


def ueraser() -> None:
    """Compare a training step on the hardest of K draws."""
    images, labels = bench.examples()
    loss = kornia_loss(images, labels, K, BEHAVIOUR, rng)
    ours = f"ueraser[kornia={BEHAVIOUR},repeats={K}"
    bench.compare(
        f"UEraser's step, K = {K}",
        3,
        {
            "kornia, backward through all": bench.plain_step(loss),
            "uebench select=full": bench.our_step(f"{ours},select=full]", images, labels),
            "uebench select=no_grad": bench.our_step(f"{ours},select=no_grad]", images, labels),
        },
    )


def iss() -> None:
    """Compare JPEG in every epoch with JPEG computed once."""
    n = 2000
    noise = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8)
    images = F.interpolate(noise.float(), scale_factor=4, mode="bilinear").to(torch.uint8)
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()

    def public() -> None:
        for array in arrays:
            file = io.BytesIO()
            Image.fromarray(array).save(file, "JPEG", quality=10)
            np.array(Image.open(file).convert("RGB"))

    bench.compare(
        f"JPEG of {n} images, each compressed once",
        1,
        {"Image.save, Image.open": public, "uebench": lambda: jpeg(images, 10)},
    )
    once = statistics.median(
        bench.seconds(lambda: jpeg(images, 10), 1) for _ in range(options.rounds)
    )
    again = statistics.median(bench.seconds(public, 1) for _ in range(options.rounds))
    print(
        f"  uebench {n / once:,.0f} images/s: 50,000 in {50_000 * once / n:.0f} s, once; over "
        f"{options.epochs} epochs {options.epochs * again / once:.0f}x less time in JPEG"
    )


def at() -> None:
    """Compare a step of adversarial training."""
    images, labels = bench.examples()
    peer = bench.plain_step(adversarial_loss(images, labels))
    bench.compare(
        "Adversarial training's step, PGD-7",
        2,
        {"fp32 NCHW": peer, "uebench": bench.our_step("at", images, labels)},
    )


def standard() -> None:
    """Compare a plain training step."""
    images, labels = bench.examples()
    peer = bench.plain_step(lambda model: F.cross_entropy(model(images), labels))
    bench.compare(
        "Training step",
        8,
        {"fp32 NCHW": peer, "uebench": bench.our_step("standard", images, labels)},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--arch", default="resnet9[width=8]")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12, help="epochs that share one run of ISS")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    warnings.simplefilter("ignore")
    # A training step frees a block as large as this one. glibc then keeps freed memory, so that
    # neither side pays for new pages.
    torch.zeros(31 * 2**20, dtype=torch.uint8)
    device = torch.device(usable_devices(options.device)[0])
    if device.type == "cpu":
        torch.set_num_threads(1)
    precision = resolve_precision("auto", str(device))
    bench = Bench(device, precision, options.arch, options.batch, options.rounds)
    rng = torch.Generator(device).manual_seed(0)
    print(
        f"torch {torch.__version__}, kornia {kornia.__version__}, {machine_name(device)}, "
        f"{options.arch}, batch {options.batch}, ours in {precision}, {options.rounds} rounds"
    )
    for part in options.parts:
        globals()[part]()
