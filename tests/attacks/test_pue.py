"""PUE's claim: its noise still hides the classes when the weights of the network change."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import make_run
from uebench import Facts, Split, frozen
from uebench.attacks.pue import PUE, NoisyWeights
from uebench.data import Dataset
from uebench.methods.registry import build_attack

ARCH = "resnet8[width=8]"


def built(dataset: Dataset, spec: str) -> PUE:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, PUE)
    return attack


def test_only_matrices_and_filters_get_noise_and_the_network_stays_as_it_is() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 200)
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(2, 1, 8, 8)
    noisy = NoisyWeights(network.eval(), 0.25, torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = noisy(images), noisy(images)
    assert not torch.equal(first, second), "every call draws again"
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    used: dict[int, Tensor] = {}
    for place in (1, 3):
        network[place].register_forward_pre_hook(
            lambda layer, _, place=place: used.update({place: layer.weight.detach().clone()})
        )
    noisy(images).sum().backward()
    change = used[3] - network[3].weight.detach()
    assert change.std().item() == pytest.approx(0.25, rel=0.02)
    assert torch.equal(used[1], network[1].weight)
    assert network[0].weight.grad is not None


def test_without_noise_it_is_the_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    noisy = NoisyWeights(network, 0.0, torch.Generator())
    images = torch.rand(4, 1, 4, 4)
    assert torch.equal(noisy(images), network(images))


@pytest.mark.slow
def test_noise_found_under_weight_noise_fits_the_networks_near_the_surrogate_better(
    stripes: Dataset,
) -> None:
    run = make_run(stripes)
    model = run.surrogate(stripes.train, ARCH, epochs=40, held_out=0)
    towards = (stripes.train.labels + 1) % 3
    train = Split(stripes.train.images, towards, stripes.train.class_names)
    losses = {}
    for sd, draws in ((0.0, 1), (0.03, 10)):
        attack = built(stripes, f"pue[wise=sample,weight_noise={sd},draws={draws},steps=10]")
        delta = torch.zeros(train.images.shape)
        with frozen(model), torch.no_grad():
            attack._descend_images(model, train, delta, run)
            near = NoisyWeights(model, 0.03, torch.Generator().manual_seed(1))
            images = train.pixels() + delta
            each = [F.cross_entropy(near(images), towards) for _ in range(30)]
        losses[sd] = torch.stack(each).mean().item()
    assert losses[0.03] < 0.93 * losses[0.0], losses


def test_each_step_of_the_noise_sums_the_draws(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    forward = NoisyWeights.forward

    def counted(self: NoisyWeights, images: Tensor) -> Tensor:
        calls.append(images.requires_grad)
        return forward(self, images)

    monkeypatch.setattr(NoisyWeights, "forward", counted)
    spec = "pue[rounds=1,train_steps=2,steps=3,draws=4,batch_size=64]"
    attack = built(tiny, spec)
    attack.craft(tiny.train, make_run(tiny))
    assert calls == [False] * 2 + [True] * 3 * 4
    assert attack.image_passes(1000) == 2 * 64 + 3 * 4 * 200


def test_the_released_commands_are_the_defaults() -> None:
    attack = build_attack("pue").resolve(Facts("cifar10", 10, (3, 32, 32), 1, "resnet8"))
    assert isinstance(attack, PUE)
    assert (attack.wise, attack.steps, attack.weight_noise, attack.draws) == ("class", 1, 0.25, 10)
    assert attack.step == pytest.approx(0.8 / 255)
