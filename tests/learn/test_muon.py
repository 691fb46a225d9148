"""Muon: what becomes of gradients, which parameters it concerns, and that it resumes."""

import pytest
import torch
from torch import nn

from uebench.learn.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (1, 9)])
def test_singular_values_come_close_to_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalised(matrix)
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() <= values.max() < 1.3
    nearest = u @ v
    cosine = (result * nearest).sum() / result.norm() / nearest.norm()
    assert cosine > 0.95
    assert torch.allclose(orthogonalised(128 * matrix), result, atol=0.02), "length is forgotten"


def test_no_gradient_at_all_stays_none() -> None:
    assert not orthogonalised(torch.zeros(4, 9)).any()


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))


def muon(model: nn.Module, **changes: float) -> Muon:
    rates = {"head_lr": 0.1, "bias_lr": 0.2}
    settings = {**rates, "momentum": 0.6, "rest_momentum": 0.85, "weight_decay": 0.0}
    return Muon(model.parameters(), 0.24, nesterov=True, **{**settings, **changes})


def train(model: nn.Module, optimizer: Muon, steps: int) -> None:
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1] * 4)).backward()
        optimizer.step()


def test_filters_have_length_one_on_average_before_they_move_by_the_learning_rate() -> None:
    model = small_network()
    with torch.no_grad():
        model[0].weight.mul_(7)
    before = model[0].weight.detach().clone()
    train(model, muon(model), 1)
    scaled = before * 4**0.5 / before.norm()
    step = (model[0].weight - scaled).flatten(1) / 0.24
    values = torch.linalg.svdvals(step.detach())
    assert 0.6 < values.min() <= values.max() < 1.3


def test_matrices_and_vectors_are_trained_by_sgd_with_learning_rates_of_their_own() -> None:
    model, plain = small_network(), small_network()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():  # Muon scales filters first: both begin at those
        for each in (model, plain):
            each[0].weight.mul_(4**0.5 / each[0].weight.norm())
    groups = [
        {"params": [plain[2].weight], "lr": 0.1, "weight_decay": 0.001 / 0.1},
        {"params": [plain[0].bias, plain[2].bias], "lr": 0.2, "weight_decay": 0.001 / 0.2},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    train(model, muon(model, weight_decay=0.001), 1)
    train(plain, optimizer, 1)  # type: ignore[arg-type]
    assert torch.allclose(model[2].weight, plain[2].weight, atol=1e-6)
    assert torch.allclose(model[0].bias, plain[0].bias, atol=1e-6)
    assert torch.allclose(model[2].bias, plain[2].bias, atol=1e-6)


def test_a_state_that_was_saved_goes_on_as_if_nothing_had_happened() -> None:
    through = small_network()
    train(through, muon(through), 4)
    first = small_network()
    optimizer = muon(first)
    train(first, optimizer, 2)
    second = small_network()
    second.load_state_dict(first.state_dict())
    resumed = muon(second)
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(through.parameters(), second.parameters(), strict=True)
    )
