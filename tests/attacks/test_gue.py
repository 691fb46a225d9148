"""GUE's claim: its generator hides the classes, in images that it has not seen as well."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.attacks.conftest import striped
from tests.conftest import make_run
from uebench import Facts
from uebench.attacks.gue import GUE, Generator, hardest_wrong_loss
from uebench.data import Dataset
from uebench.methods.registry import build_attack

ARCH = "resnet8[width=8]"


def built(dataset: Dataset, spec: str) -> GUE:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, GUE)
    return attack


@pytest.mark.slow
def test_the_network_reads_the_class_of_unseen_images_from_their_noise(stripes: Dataset) -> None:
    attack, run = built(stripes, "gue[width=8,epochs=20,batch_size=50]"), make_run(stripes)
    network, generator = attack.played(stripes.train, run)
    unseen = striped(300, seed=9).train
    untrained = make_run(stripes).build(lambda: Generator(3, 8))
    right = {}
    # batch norm's running statistics are those of clean and poisoned batches together
    network.train()
    for name, module in (("trained", generator.eval()), ("untrained", untrained.eval())):
        with torch.no_grad():
            noise = attack.noise(module, unseen.pixels(), run)
            guesses = network((unseen.pixels() + noise).clamp(0, 1)).argmax(1)
        assert noise.abs().max() <= attack.eps + 1e-6
        right[name] = (guesses == unseen.labels).float().mean().item()
    assert right["trained"] > 0.8 > 0.5 > right["untrained"], right


def plain_gradients(
    attack: GUE, network: nn.Module, generator: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the directions of network and generator, written out from the definition."""

    def flat(loss: Tensor, module: nn.Module) -> Tensor:
        slopes = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        return torch.cat([each.flatten() for each in slopes])

    def poisoned_loss(model: nn.Module) -> Tensor:
        images_now = (images + attack.eps * generator(images)).clamp(0, 1)
        return F.cross_entropy(model(images_now), labels)

    best = copy.deepcopy(network)
    adam = torch.optim.Adam(best.parameters(), attack.copy_lr)
    for _ in range(attack.copy_steps):
        adam.zero_grad()
        poisoned_loss(best).backward()
        adam.step()
    logits = network(images)
    wrong = [
        torch.stack([F.cross_entropy(row, torch.tensor(k)) for k in range(3) if k != label]).max()
        for row, label in zip(logits, labels.tolist(), strict=True)
    ]
    aim = flat(torch.stack(wrong).mean(), network)
    of_theta = flat(poisoned_loss(network), network)
    of_phi = flat(poisoned_loss(network) - poisoned_loss(best), generator)
    squared = of_theta.square().sum() + of_phi.square().sum()
    weight = ((attack.eta * squared - aim @ of_theta) / (squared + 1e-8)).clamp_min(0)
    assert weight > 0, "a weight of 0 would hide the other terms"
    return aim + weight * of_theta, weight * of_phi


def test_a_move_of_the_game_is_its_definition(stripes: Dataset) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 20), nn.Tanh(), nn.Linear(20, 3))
    generator = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
    attack = built(stripes, "gue[copy_steps=4,copy_lr=0.01,eta=2]")
    part = stripes.train.subset(torch.arange(20))
    expected = plain_gradients(attack, network, generator, part.pixels(), part.labels)
    before = [value.clone() for value in network.parameters()]
    attack.play(network, generator, part, make_run(stripes))
    for module, direction in zip((network, generator), expected, strict=True):
        reached = torch.cat([value.grad.flatten() for value in module.parameters()])
        torch.testing.assert_close(reached, direction, rtol=1e-3, atol=1e-6)
    assert all(map(torch.equal, before, network.parameters())), "the copy alone takes steps"


def test_the_hardest_wrong_class_counts() -> None:
    logits = torch.tensor([[5.0, 1.0, -2.0], [0.0, 9.0, 3.0]])
    labels = torch.tensor([2, 1])
    expected = F.cross_entropy(logits, torch.tensor([1, 0]))
    assert hardest_wrong_loss(logits, labels).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 13, 21), (1, 5, 4)])
def test_the_generator_takes_any_size(shape: tuple[int, int, int]) -> None:
    noise = Generator(shape[0], 4)(torch.rand(2, *shape))
    assert noise.shape == (2, *shape)
    assert noise.abs().max() <= 1


def test_the_authors_numbers_are_the_defaults_and_one_class_is_refused() -> None:
    attack = build_attack("gue").resolve(Facts("cifar10", 10, (3, 32, 32), 1, "resnet8"))
    assert isinstance(attack, GUE)
    assert (attack.epochs, attack.copy_steps, attack.batch_size, attack.eta) == (50, 10, 256, 1.5)
    assert (attack.lr, attack.generator_lr, attack.copy_lr) == (0.01, 0.1, 1e-4)
    assert attack.image_passes(1000) == 650_000
    with pytest.raises(ValueError, match="gue needs at least 2 classes to tell apart, got 1"):
        build_attack("gue").resolve(Facts("test", 1, (3, 8, 8), 1, "resnet9"))
