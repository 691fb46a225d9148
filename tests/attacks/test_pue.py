"""PUE's claim: its noise still hides the classes when the weights of the network change."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import make_run, random_dataset
from uebench import Facts, Split, UserError, frozen
from uebench.attacks._error_minimizing import Turn
from uebench.attacks._shared import Batches
from uebench.attacks.pue import PUE, NoisyWeights
from uebench.data import Dataset
from uebench.methods.registry import build_attack

ARCH = "resnet8[width=8]"


def built(dataset: Dataset, spec: str) -> PUE:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, PUE)
    return attack


def test_all_parameters_get_noise_and_the_network_stays_as_it_is() -> None:
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
    used: dict[str, Tensor] = {}
    for layer in network:
        layer.register_forward_pre_hook(
            lambda layer, _: used.update(
                {f"{type(layer).__name__}.{k}": v.detach() for k, v in layer.named_parameters()}
            )
        )
    noisy(images).sum().backward()
    layers = {type(layer).__name__: layer for layer in network}
    for name, value in used.items():
        layer, _, parameter = name.partition(".")
        change = value - getattr(layers[layer], parameter).detach()
        assert (change != 0).all(), name
        if len(change.flatten()) > 1000:
            assert change.std().item() == pytest.approx(0.25, rel=0.02)
    assert len(used) == 6
    assert all(parameter.grad is not None for parameter in network.parameters())


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
    for sd in (0.0, 0.03):
        options = f"wise=sample,weight_noise={sd},level_step=0.03,steps=10"
        attack = built(stripes, f"pue[{options}]")
        delta = torch.zeros(train.images.shape)
        with frozen(model), torch.no_grad():
            attack._descend_images(attack.turns(model, run, "noise", 1.0), train, delta)
            near = NoisyWeights(model, 0.03, torch.Generator().manual_seed(1))
            images = train.pixels() + delta
            each = [F.cross_entropy(near(images), towards) for _ in range(30)]
        losses[sd] = torch.stack(each).mean().item()
    assert losses[0.03] < 0.93 * losses[0.0], losses


class Calls:
    """What networks were asked in a search: the noise on their weights, and for whose gradient."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[tuple[float, bool]] = []
        forward = NoisyWeights.forward

        def counted(noisy: NoisyWeights, images: Tensor) -> Tensor:
            self.of.append((noisy.sd, images.requires_grad))
            return forward(noisy, images)

        monkeypatch.setattr(NoisyWeights, "forward", counted)

    def levels(self, for_images: bool) -> list[float]:
        return [round(sd, 6) for sd, is_for_images in self.of if is_for_images == for_images]


SMALL = "train_steps=2,steps=3,draws=4,network_draws=5,batch_size=64,weight_noise=0.1"


def test_each_level_takes_a_step_and_sums_its_draws(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uebench.attacks.pue.LEARNED", -1.0)
    calls = Calls(monkeypatch)
    attack = built(tiny, f"pue[rounds=1,{SMALL}]")
    steps = []
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *_: steps.append(self.param_groups[0]["lr"])
    )
    attack.craft(tiny.train, make_run(tiny))
    assert calls.levels(for_images=False) == 2 * ([0.05] * 5 + [0.1] * 5)
    assert calls.levels(for_images=True) == 3 * ([0.05] * 4 + [0.1] * 4)
    assert len(steps) == 2 * 3, "a batch takes one step without noise and one for each level"


def test_the_weights_get_noise_once_half_of_the_images_are_learned(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    attack = built(tiny, f"pue[rounds=4,{SMALL}]")
    measured = iter([0.5, 0.6, 0.2, 0.2])
    monkeypatch.setattr(PUE, "_accuracy", lambda *_: next(measured))
    made = []
    run = make_run(tiny)
    run.progress = lambda *_, **__: made.append(len(calls.of))  # type: ignore[method-assign]
    attack.craft(tiny.train, run)
    in_a_round = 2 * 10 + 3 * 8
    assert made == [0, 0, in_a_round, 2 * in_a_round], "and keeps it when the accuracy falls"


def test_a_step_follows_the_mean_gradient_over_draws_and_levels() -> None:
    """A loss of which half of the draws weigh the image twice, and half not at all."""
    dataset = random_dataset([8, 8])
    attack = built(dataset, "pue[train_steps=1,network_draws=2]")
    weights = iter([2.0, 0.0, 2.0, 0.0])
    model = nn.Linear(1, 1, bias=False)
    before = model.weight.detach().clone()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return next(weights) * model.weight.sum() * len(images)

    run = make_run(dataset)
    n = len(dataset.train)
    order = Batches(n, n, run)
    noise = torch.zeros(2, *dataset.shape)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    turns = [Turn(loss, 2), Turn(loss, 2)]
    attack._train(turns, model, optimizer, dataset.train, noise, dataset.train.labels, order, run)
    torch.testing.assert_close(before - model.weight.detach(), torch.tensor([[1.0]]))


@pytest.mark.parametrize(
    ("noise", "step", "levels"),
    [
        (0.25, 0.05, [0, 0.05, 0.1, 0.15, 0.2, 0.25]),
        (0.15, 0.05, [0, 0.05, 0.1, 0.15]),
        (0.03, 0.03, [0, 0.03]),
        (0.1, 0.2, [0]),
        (0.0, 0.05, [0]),
    ],
)
def test_the_levels(noise: float, step: float, levels: list[float]) -> None:
    attack = build_attack(f"pue[weight_noise={noise},level_step={step}]").method
    assert isinstance(attack, PUE)
    assert attack.levels == pytest.approx(levels)


@pytest.mark.parametrize(("dataset", "train_steps"), [("cifar10", 10), ("cifar100", 20)])
def test_the_released_commands_are_the_defaults(dataset: str, train_steps: int) -> None:
    attack = build_attack("pue").resolve(Facts(dataset, 10, (3, 32, 32), 1, "resnet8"))
    assert isinstance(attack, PUE)
    assert (attack.wise, attack.steps, attack.weight_noise, attack.draws) == ("class", 1, 0.25, 10)
    assert (attack.level_step, attack.network_draws, attack.batch_size) == (0.05, 100, 128)
    assert (attack.train_steps, attack.stop_accuracy) == (train_steps, 0.9)
    assert attack.step == pytest.approx(0.8 / 255)


def test_the_cost_counts_the_draws_of_each_level() -> None:
    facts = Facts("test", 10, (3, 32, 32), 1, "resnet8")
    attack = build_attack("pue[rounds=9]").resolve(facts)
    network, noise = 10 * 128, 10_000
    noisy = 2 * 5 * (network * 100 + noise * 10)
    assert attack.image_passes(50_000) == 9 * (network + noise) + noisy
    assert build_attack("pue[rounds=5]").resolve(facts).image_passes(50_000) == 5 * 11_280


def test_levels_that_do_not_end_at_the_largest_are_refused() -> None:
    facts = Facts("test", 2, (3, 16, 16), 1, "resnet8")
    for options in ("weight_noise=0.04", "weight_noise=0.12", "level_step=0.1"):
        with pytest.raises(UserError, match="is not a multiple of level_step"):
            build_attack(f"pue[{options}]").resolve(facts)
    for options in ("weight_noise=0", "weight_noise=0.15", "weight_noise=0.3,level_step=0.1"):
        assert build_attack(f"pue[{options}]").resolve(facts)
