"""The GPU's stand-in refuses what a GPU refuses, and computes what the CPU computes."""

import contextlib
import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.cells.test_cell import planned
from tests.learn.test_checkpoint import NUMBERS, KilledError, killing_after, left
from uebench.cells.compute import compute
from uebench.data import Dataset, split
from uebench.data.dataset import keep_dataset
from uebench.store import arrays as memory
from uebench.store.store import Store
from uebench.testing import gpu_stand_in

REFUSED: dict[str, tuple[Callable[[Any, str], Any], str]] = {
    "a sum": (lambda x, _: x + torch.ones(3), "add: one tensor is on the GPU, another on the CPU"),
    "a product": (lambda x, _: torch.ones(2, 4) @ x, "one tensor is on the GPU"),
    "cat": (lambda x, _: torch.cat([x, torch.ones(1, 3)]), "one tensor is on the GPU"),
    "where": (lambda x, _: torch.where(x > 0, x, torch.ones(4, 3)), "one tensor is on the GPU"),
    "in place": (lambda x, _: torch.ones(4, 3).add_(x), "one tensor is on the GPU"),
    "out": (lambda x, _: torch.add(x, 1, out=torch.empty(4, 3)), "one tensor is on the GPU"),
    "an index on the GPU": (lambda x, _: torch.ones(9)[x.long()[0]], "one tensor is on the GPU"),
    "a network on the CPU": (lambda x, _: nn.Linear(3, 2)(x), "one tensor is on the GPU"),
    "numpy": (lambda x, _: x.numpy(), "no NumPy array; use Tensor.cpu"),
    "an array": (lambda x, _: np.asarray(x), "no NumPy array; use Tensor.cpu"),
    "data": (lambda x, _: setattr(x, "data", torch.ones(4, 3)), "one tensor is on the GPU"),
    "the CPU's generator": (
        lambda _, device: torch.rand(3, generator=torch.Generator(), device=device),
        "rand: the result is on the GPU, the generator on the CPU",
    ),
    "the GPU's generator": (
        lambda _, device: torch.rand(3, generator=torch.Generator(device)),
        "rand: the result is on the CPU, the generator not",
    ),
    "a shape in place": (lambda x, _: x.resize_(2, 2), "changes no shape in place"),
}

ALLOWED: dict[str, Callable[[Any], Any]] = {
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
    "an index of the CPU": lambda x: x[torch.tensor([2, 0])],
    "a mask": lambda x: x[x > 0.5],
    "a copy": lambda x: torch.zeros_like(x).copy_(torch.ones(4, 3)),
    "a view changed in place": lambda x: (x.t()[0].zero_(), x)[1],
    "new data": lambda x: (setattr(x, "data", x + 1), x)[1],
    "a tensor beside it": lambda x: x + x.new_tensor([1, 2, 3]),
    "a copied network": lambda x: copy.deepcopy(_network(x.device))(x),
    "without gradient": lambda x: torch.inference_mode()(lambda: torch.stack(list(x.cumsum(0))))(),
    "order": lambda x: x.flatten().argsort().float(),
}


def _network(device: Any) -> nn.Module:
    network = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    return network.to(device)


def _numbers(device: str) -> torch.Tensor:
    rng = torch.Generator(device).manual_seed(1)
    return torch.rand(4, 3, generator=rng, device=device)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(name: str) -> None:
    do, told = REFUSED[name]
    with gpu_stand_in() as device:
        numbers = _numbers(device)
        with pytest.raises((RuntimeError, TypeError, NotImplementedError), match=told):
            do(numbers, device)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_gpu_allows_gives_the_cpus_numbers(name: str) -> None:
    expected = ALLOWED[name](_numbers("cpu"))
    with gpu_stand_in() as device:
        found = ALLOWED[name](_numbers(device))
        assert found.device.type == device
        assert found.tolist() == expected.tolist()
        back = found.cpu()
    assert torch.equal(back, expected)


def test_networks_train_to_the_same_bits() -> None:
    def trained(device: str) -> torch.Tensor:
        network = _network(device)
        optimizer = torch.optim.AdamW(network.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast(device, enabled=False):
                network(_numbers(device)).square().mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            optimizer.step()
        (weight, _) = network.parameters()
        return weight.detach().cpu()

    expected = trained("cpu")
    with gpu_stand_in() as device:
        assert torch.equal(trained(device), expected)


def test_torch_is_left_as_it_was() -> None:
    names = ("Generator", "tensor", "as_tensor", "autocast", "inference_mode")
    before = [getattr(torch, name) for name in names]
    kept = []
    with contextlib.suppress(ZeroDivisionError), gpu_stand_in() as device:
        kept.append(_numbers(device))
        raise ZeroDivisionError
    assert [getattr(torch, name) for name in names] == before
    with pytest.raises(RuntimeError, match="outlived the GPU's stand-in; move it to the CPU"):
        kept[0] + 1
    assert torch.Generator().device.type == "cpu"


@pytest.mark.parametrize("in_host_memory", [False, True])
@pytest.mark.parametrize(
    ("attack", "defense"),
    [
        pytest.param(
            "em[surrogate=resnet9[width=2],rounds=2,train_steps=2,steps=2]",
            "ueraser",
            marks=pytest.mark.slow,
        ),
        ("lsp", "at"),
        ("none", "iss"),
    ],
)
def test_a_cell_gives_the_cpus_numbers_killed_or_not(
    attack: str,
    defense: str,
    in_host_memory: bool,
    tiny: Dataset,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "0")
    if in_host_memory:
        for module in (split, memory):
            monkeypatch.setattr(module, "fits", lambda _, device: device.type == "cpu")
    cell = planned(tiny, attacks=attack, defenses=defense)
    # the stand-in leaves bf16 out
    cell = replace(cell, precision="fp32", poison=replace(cell.poison, precision="fp32"))
    changes = {"epochs": 3, "robust": True, "alternate": True, "normalise": "dataset"}
    cell = replace(cell, protocol=cell.protocol.model_copy(update=changes))
    apart = Store(tmp_path / "apart")
    for each in (store, apart):
        keep_dataset(each, tiny)
    expected = compute(cell, store, "cpu")
    with gpu_stand_in() as device:
        find = functools.partial(compute, cell, apart, device)
        with pytest.raises(KilledError):
            find(progress=killing_after(2))
        assert left(apart) or attack != "none", "a training of several epochs leaves a checkpoint"
        record = find()
    assert record["device"] == device
    assert {key: record[key] for key in NUMBERS} == {key: expected[key] for key in NUMBERS}
    assert record["robust_acc"] == expected["robust_acc"]
