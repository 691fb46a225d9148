"""What the benchmarks share: alternating timing, and training steps of public code and of ours."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uebench import Facts, Run, load_dataset
from uebench.augment.color import Kornia
from uebench.common.provenance import machine
from uebench.learn.protocol import Protocol, named_protocol
from uebench.methods.registry import build_defense
from uebench.models import build_network
from uebench.victims.supervised import train_model

SHAPE = (3, 32, 32)
CLASSES = 10


@dataclass(frozen=True)
class Bench:
    """Where and how to measure: device, our precision, network, batch size and number of rounds."""

    device: torch.device
    precision: str
    arch: str
    batch: int
    rounds: int

    def run(self) -> Run:
        """Return a run of ours on CIFAR-sized images."""
        return Run(
            shape=SHAPE,
            n_classes=CLASSES,
            seed=0,
            device=self.device,
            precision=self.precision,  # type: ignore[arg-type]
        )

    def examples(self) -> tuple[Tensor, Tensor]:
        """Return a batch of images in [0, 1] and labels."""
        return (
            torch.rand(self.batch, *SHAPE, device=self.device),
            torch.randint(CLASSES, (self.batch,), device=self.device),
        )

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """Return the mean time of a call in seconds, including queued work on the device."""
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.wait()
        return (time.perf_counter() - start) / calls

    def wait(self) -> None:
        """Wait until the device has finished all queued work, which is asynchronous on a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def compare(
        self, title: str, calls: int, contenders: Mapping[str, Callable[[], object]]
    ) -> dict[str, tuple[float, float]]:
        """Time the contenders in alternation and print one row each; the first is the reference.

        Returns:
            By name, the median seconds per call and the median speed-up over the reference, taken
            within a round.
        """
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for call in contenders.values():
            self.seconds(call, 1)
        for _ in range(self.rounds):
            for name, call in contenders.items():
                times[name].append(self.seconds(call, calls))
        base = next(iter(times.values()))
        print(f"\n{title}")
        compared = {}
        for name, taken in times.items():
            ratios = [slow / fast for slow, fast in zip(base, taken, strict=True)]
            compared[name] = statistics.median(taken), statistics.median(ratios)
            print(
                f"  {name:34}{compared[name][0] * 1e3:10.1f} ms"
                f"{compared[name][1]:8.2f}x  ({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )
        return compared

    def plain_step(self, loss: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
        """Return a training step as tutorials write it: fp32, NCHW and plain SGD."""
        model = build_network(self.arch, CLASSES, SHAPE, 0).to(self.device)
        model = model.to(memory_format=torch.contiguous_format).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

        def step() -> None:
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()

        return step

    def our_step(
        self, spec: str, images: Tensor, labels: Tensor, compiled: bool = False
    ) -> Callable[[], None]:
        """Return a training step under a defense, as uebench runs it."""
        defense = build_defense(spec).resolve(Facts("cifar10", CLASSES, SHAPE, 200, self.arch))
        run = self.run()
        model = run.network(self.arch).train()
        if compiled:
            model.compile()
        optimizer = torch.optim.SGD(
            model.parameters(),
            0.01,
            momentum=0.9,
            weight_decay=5e-4,
            fused=self.device.type == "cuda",
        )
        images = images.contiguous(memory_format=torch.channels_last)

        def step() -> None:
            with run.autocast():
                loss = defense.loss(model, images, labels, run)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step


def kornia_loss(
    images: Tensor, labels: Tensor, k: int, behaviour: Kornia, rng: torch.Generator
) -> Callable[[nn.Module], Tensor]:
    """Return UEraser's loss as public code computes it: kornia's pipeline on a tiled batch."""
    from uebench.augment import Policy

    pipeline = Policy(kornia=behaviour, draw="batch", engine="kornia")

    def loss(model: nn.Module) -> Tensor:
        copies = pipeline(images.repeat(k, 1, 1, 1), rng)
        losses = F.cross_entropy(model(copies), labels.repeat(k), reduction="none")
        return losses.view(k, -1).amax(0).mean()

    return loss


def installed_behaviour() -> Kornia:
    """Return whose behaviour the installed kornia has."""
    import kornia

    return "0.6" if kornia.__version__ < "0.9" else "0.9"


def adversarial_loss(
    images: Tensor, labels: Tensor, radius: float = 4 / 255
) -> Callable[[nn.Module], Tensor]:
    """Return the loss of adversarial training (linf, PGD-7) as public code computes it."""

    def loss(model: nn.Module) -> Tensor:
        model.eval()
        point = images + torch.empty_like(images).uniform_(-radius, radius)
        for _ in range(7):
            point = point.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(point), labels), point)
            point = point.detach() + radius / 5 * gradient.sign()
            point = torch.min(torch.max(point, images - radius), images + radius).clamp(0, 1)
        model.train()
        return F.cross_entropy(model(point), labels)

    return loss


def protocol_of(args: argparse.Namespace, **changes: Any) -> Protocol:
    """Return the protocol that a script's `--protocol` names, with the network of `--arch`."""
    network = {"arch": args.arch} if args.arch else {}
    return named_protocol(args.protocol, **network, **changes)


def epoch_under(name: str, bench: Bench, args: argparse.Namespace) -> Callable[[], None]:
    """Return a training of one epoch under a defense, without a test of any size."""
    data = load_dataset(f"synthetic[n_train={args.images},n_test=10]")
    protocol = protocol_of(args, epochs=1, eval_every=10)
    facts = Facts("cifar10", data.n_classes, data.shape, 1, protocol.arch)
    method = build_defense(name).resolve(facts)
    two = data.test.subset(torch.arange(2))

    def epoch() -> None:
        run = bench.run()
        train_model(data.train, two, protocol.arch, method.adjust(protocol), method, run)

    return epoch


def processor_seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call in seconds, on which other processes have little say."""
    start = time.process_time()
    call()
    return time.process_time() - start


def machine_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor if the device is the CPU."""
    found = machine(device)
    return str(found["cpu" if device.type == "cpu" else "device"])
