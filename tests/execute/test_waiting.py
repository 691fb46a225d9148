"""Training steps do not wait for a GPU, which reading back a number would make them do."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from uebench.learn.protocol import PROTOCOLS
from uebench.methods.registry import build_defense
from uebench.testing import gpu_stand_in, make_run, random_dataset
from uebench.testing.data import facts_of
from uebench.victims.supervised import train_model

READING = {"_local_scalar_dense", "nonzero", "equal", "_unique2", "masked_select", "is_nonzero"}


class Waits(TorchDispatchMode):
    """Counts the operations for which Python waits until the GPU has a result."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type == self.device for tensor in tensors):
            target = kwargs.get("device")
            to_cpu = target is not None and torch.device(target).type == "cpu"
            masked = name == "index" and any(tensor.dtype == torch.bool for tensor in tensors[1:])
            if name in READING or to_cpu or masked:
                self.seen[name] += 1
        return func(*args, **kwargs)


def waits(defense: str, n_steps: int) -> int:
    """Return how often a training of one epoch and `n_steps` steps waits."""
    dataset = random_dataset([8 * n_steps] * 2)
    built = build_defense(defense).resolve(facts_of(dataset, 1))
    changes = {"epochs": 1, "batch_size": 16}
    protocol = built.adjust(PROTOCOLS["sprint"].model_copy(update=changes))
    with gpu_stand_in() as device:
        run = make_run(dataset, epochs=1, device=device)
        data, test = built.prepare(dataset.train.to(device), run), dataset.test.to(device)
        with Waits(device) as counted:
            train_model(data, test, "resnet9[width=2]", protocol, built, run)
    return sum(counted.seen.values())


@pytest.mark.parametrize(
    ("defense", "a_step"),
    [("standard", 0), ("iss", 0), ("at", 0), ("mixup", 0), ("ueraser_lite", 1), ("ueraser_max", 1)],
)
def test_a_step_waits_no_more_often_than_it_must(defense: str, a_step: int) -> None:
    few, many = waits(defense, 2), waits(defense, 6)
    assert few > 0, "an epoch's end reads its loss and accuracy"
    assert many - few == 4 * a_step
