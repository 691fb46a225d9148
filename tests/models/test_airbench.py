"""airbench's network: what its first layer does, where it begins, and which images it takes."""

import pytest
import torch
from torch import Tensor

from tests.conftest import make_run
from uebench.data import Dataset
from uebench.models import build_network
from uebench.models.airbench import Airbench, Whitening


def network(
    n_classes: int = 10, shape: tuple[int, int, int] = (3, 32, 32), options: str = ""
) -> Airbench:
    model = build_network(f"airbench{options}", n_classes, shape, 0)
    assert isinstance(model, Airbench)
    return model


def correlated(n: int = 64, channels: int = 3) -> Tensor:
    """Return images whose neighbouring pixels and channels go together, as in photographs."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 1, 8, 8, generator=rng)
    noise = torch.rand(n, channels, 16, 16, generator=rng)
    return torch.nn.functional.interpolate(coarse, 16, mode="bilinear") + noise


def test_it_has_its_known_number_of_parameters() -> None:
    parameters = [p for p in network().parameters() if p.requires_grad]
    filters = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    biases = 24 + 2 * (64 + 256 + 256)
    assert sum(p.numel() for p in parameters) == filters + biases + 10 * 256 == 1_971_352


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_batch_is_whitened_and_later_ones_change_nothing(channels: int) -> None:
    layer = Whitening(channels)
    images = correlated(channels=channels)
    out = layer(images)
    half = 4 * channels
    responses = out[:, :half].transpose(0, 1).flatten(1)
    assert torch.allclose(responses.cov(), torch.eye(half), atol=0.05)
    assert torch.equal(out[:, half:], -out[:, :half])
    before = layer.weight.clone()
    layer(torch.rand(8, channels, 16, 16))
    assert torch.equal(layer.weight, before)


def test_nothing_is_whitened_outside_training_and_a_stored_network_keeps_its_filters() -> None:
    layer = Whitening(3).eval()
    rotation = layer.weight.clone()
    layer(correlated())
    assert torch.equal(layer.weight, rotation)
    layer.train()(correlated())
    copy = Whitening(3)
    copy.load_state_dict(layer.state_dict())
    copy.train()(torch.rand(8, 3, 16, 16))
    assert torch.equal(copy.weight, layer.weight)


def test_images_without_any_variance_are_no_reason_to_fail() -> None:
    layer = Whitening(3)
    assert layer(torch.full((4, 3, 8, 8), 0.5)).isfinite().all()


def test_whitening_is_computed_in_full_precision_under_autocast() -> None:
    plain, cast = Whitening(3), Whitening(3)
    plain(correlated())
    with torch.autocast("cpu", torch.bfloat16):
        cast(correlated())
    assert torch.equal(plain.weight, cast.weight)


def test_convolutions_begin_as_the_identity() -> None:
    group = network().groups[1]
    x = torch.rand(2, 64, 6, 6)
    assert torch.allclose(group.first(x)[:, :64], x)  # type: ignore[operator]


def test_logits_begin_as_small_as_in_the_source() -> None:
    """There the last layer begins with standard deviation 1, and logits are divided by 256."""
    assert network().head.weight.std().item() == pytest.approx(1 / 256, rel=0.1)


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 7, 5), (3, 19, 64), (3, 96, 96)])
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_images_of_any_size_pass(shape: tuple[int, int, int], pool: str) -> None:
    model = network(2, shape, f"[width=4,pool={pool}]")
    loss = torch.nn.functional.cross_entropy(model(torch.rand(6, *shape)), torch.tensor([0, 1] * 3))
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_the_first_layer_is_trained_where_that_is_asked_for() -> None:
    images = correlated()
    for first, is_trained in (("whitened", False), ("trained", True)):
        model = network(shape=(3, 16, 16), options=f"[width=4,first={first}]").train()
        assert model.whitening.weight.shape == (24, 3, 2, 2)
        model(images).sum().backward()
        assert model.whitening.weight.requires_grad is is_trained
    assert model.whitening.weight.grad is not None


def test_it_serves_as_a_surrogate(tiny: Dataset) -> None:
    model = make_run(tiny).surrogate(tiny.train, "airbench[width=4]", epochs=2, batch_size=20)
    assert bool(model.whitening.fitted)
