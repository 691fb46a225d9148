"""TAP's claim: its images are the next class, to the surrogate and to another network.

AAP and EntF share its search: AAP's images stay adversarial under contrastive augmentation, and
EntF's features leave the mean of their class.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import make_run
from uebench import UserError, frozen, penultimate
from uebench.attacks._adversarial import AdversarialNoise
from uebench.attacks._shared import class_means
from uebench.augment import contrastive
from uebench.data import Dataset
from uebench.data.split import Split
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack
from uebench.methods.run import Run
from uebench.store.store import Store

ARCH = "resnet8[width=8]"
QUICK = "surrogate_epochs=50,steps=20,step=1/255"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which each surrogate of these tests is trained once."""
    return Store(tmp_path_factory.mktemp("tap") / "store")


def made(dataset: Dataset, spec: str) -> AdversarialNoise:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, AdversarialNoise)
    return attack


def crafted(attack: AdversarialNoise, dataset: Dataset, store: Store) -> tuple[Tensor, nn.Module]:
    """Return the images of a poison in [0, 1], and the network that it was crafted with."""
    poison = attack.craft(dataset.train, make_run(dataset, store=store))
    model = attack._network(dataset.train, make_run(dataset, 9, store=store))
    return poison.images.float() / 255, model


@torch.no_grad()
def share(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(1) == labels).float().mean().item()


@pytest.mark.slow
def test_images_are_the_next_class_for_the_surrogate_and_for_another_network(
    stripes: Dataset, shared_store: Store
) -> None:
    images, model = crafted(made(stripes, f"tap[restarts=1,{QUICK}]"), stripes, shared_store)
    other_run = make_run(stripes, 5, shared_seed=5, store=shared_store)
    other = other_run.surrogate(stripes.train, "resnet9[width=4]", epochs=50, held_out=0)
    wanted = (stripes.train.labels + 1) % 3
    clean = stripes.train.pixels()
    for network, at_least in ((model, 0.7), (other, 0.5)):
        assert share(network, clean, stripes.train.labels) > 0.7, "it has learned its classes"
        assert share(network, clean, wanted) < 0.2
        assert share(network, images, wanted) > at_least


def test_untargeted_images_are_no_longer_their_class(stripes: Dataset, shared_store: Store) -> None:
    attack = made(stripes, f"tap[objective=untargeted,restarts=1,{QUICK}]")
    images, model = crafted(attack, stripes, shared_store)
    assert share(model, images, stripes.train.labels) < 0.3


def test_the_restart_with_the_lowest_mean_loss_is_taken(tiny: Dataset) -> None:
    attack = made(tiny, "tap[restarts=4,surrogate_epochs=2,steps=2,batch_size=15]")
    noises: list[list[Tensor]] = [[]]
    search = AdversarialNoise._search

    def noted(self: AdversarialNoise, loss: Any, part: Split, *more: Any) -> tuple[Tensor, float]:
        noise, _ = search(self, loss, part, *more)
        if len(noises[-1]) == 3:  # 40 images are 15 + 15 + 10
            noises.append([])
        noises[-1].append(noise)
        return noise, [3.0, 1.0, 2.0, 1.5][len(noises) - 1] * len(part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialNoise, "_search", noted)
        run = make_run(tiny)
        delta = attack.perturb(tiny.train, run)
    assert run.notes["restart_losses"] == [3.0, 1.0, 2.0, 1.5]
    assert torch.equal(delta, torch.cat(noises[1]))
    assert not torch.equal(delta, torch.cat(noises[0]))


def test_the_loss_of_a_restart_is_the_loss_of_its_noise(
    stripes: Dataset, shared_store: Store
) -> None:
    attack = made(stripes, f"tap[restarts=1,shift=0,{QUICK}]")
    run = make_run(stripes, store=shared_store)
    delta = attack.perturb(stripes.train, run)
    model = attack._network(stripes.train, run)
    wanted = (stripes.train.labels + 1) % 3
    images = stripes.train.pixels() + delta
    with torch.no_grad():
        losses = [F.cross_entropy(model(x), wanted).item() for x in (images, images.flip(3))]
    assert min(losses) - 0.05 < run.notes["restart_losses"][0] < max(losses) + 0.05


def test_a_start_is_normal_and_cut_off_and_every_step_draws_another_view(tiny: Dataset) -> None:
    attack = made(tiny, "tap[steps=1,eps=32/255,step=0.001/255]")

    def flat(images: Tensor, labels: Tensor) -> Tensor:
        return images.sum()

    noise, _ = attack._search(flat, tiny.train, tiny.train.labels, make_run(tiny))
    inside = ((tiny.train.pixels() - 0.5).abs() < 0.3).expand_as(noise)
    drawn = noise[inside] / attack.eps
    assert drawn.abs().max() <= 1 + 1e-5
    assert ((drawn.abs() > 0.999).float().mean() - 0.317).abs() < 0.03, "beyond one deviation"
    assert drawn.mean().abs() < 0.05
    run = make_run(tiny)
    view = attack._view(run)
    images = tiny.train.pixels()
    assert not torch.equal(view(images), view(images))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("tap", {"surrogate_epochs": 40, "steps": 250, "step": 0.4 / 255, "restarts": 8}),
        ("tap", {"start": "normal", "batch_size": 512, "shift": 4.0, "adv_radius": 0.0}),
        ("aap", {"surrogate_epochs": 40, "steps": 250, "step": 0.08 / 255, "restarts": 1}),
        ("aap[steps=25]", {"step": 0.8 / 255}),  # else the noise could not reach the budget
        ("aap[steps=1]", {"step": 20 / 255}),
        ("aap", {"start": "zero", "batch_size": 128, "strength": 0.4, "surrogate_lr": 0.5}),
        ("entf", {"surrogate_epochs": 100, "steps": 300, "step": 0.4 / 255, "restarts": 1}),
        ("entf", {"objective": "push", "reference": "at", "adv_radius": 4 / 255}),
    ],
)
def test_the_authors_numbers_are_the_defaults(spec: str, expected: dict[str, Any]) -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 1, "resnet8")
    options = build_attack(spec).resolve(facts).options()
    assert {name: options[name] for name in expected} == pytest.approx(expected)
    more_classes = Facts("cifar100", 100, (3, 32, 32), 1, "resnet8")
    assert build_attack("aap").resolve(more_classes).options()["strength"] == 0.8
    large = Facts("imagenet_subset", 100, (3, 224, 224), 1, "resnet18")
    assert build_attack("tap").resolve(large).options()["shift"] == 28


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ("tap", 40 + 8 * 250),
        ("tap[restarts=1]", 290),
        ("aap", 290),
        ("entf", 100 * 11 + 300),
        ("tap[reference=at,eps=32/255]", 40 * 11 + 2000),
    ],
)
def test_costs(spec: str, passes: int) -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 1, "resnet8")
    assert build_attack(spec).resolve(facts).image_passes(1000) == 1000 * passes


def test_surrogates_are_trained_as_the_authors_do(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}

    def surrogate(self: Run, data: Split, arch: str, **how: Any) -> nn.Module:
        asked[name] = how
        return self.network(arch)

    monkeypatch.setattr(Run, "surrogate", surrogate)
    for name in ("tap", "aap", "entf"):
        made(tiny, name)._network(tiny.train, make_run(tiny))
    tap, aap, entf = (asked[name] for name in ("tap", "aap", "entf"))
    assert [tap["training"].rate(1, e, 40) for e in (13, 14, 23, 24, 34, 35)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01, 0.001]
    )
    assert tap["training"].nesterov
    assert (tap["training"].augment, tap["training"].strength) == ("shift", 2.0)  # 16 px
    assert tap["at"] is None
    assert aap["lr"] == 0.5
    assert aap["training"].weight_decay == 1e-4
    assert aap["training"].rate(0.5, 10, 40) == pytest.approx(0.5)
    assert aap["training"].rate(0.5, 25, 40) == pytest.approx(0.25, abs=1e-4)
    assert (aap["training"].augment, aap["training"].strength) == ("contrastive", 0.4)
    assert entf["at"] == pytest.approx((4 / 255, 10, 2 / 255, True))
    assert [entf["training"].rate(1, e, 100) for e in (74, 75, 90)] == pytest.approx([1, 0.1, 0.01])
    assert {how["held_out"] for how in asked.values()} == {0}, "the last epoch is taken"


@pytest.mark.slow
def test_aap_holds_under_the_augmentation_better_than_tap(
    stripes: Dataset, shared_store: Store
) -> None:
    """Both descend on one network, so that the view alone differs."""
    options = "eps=4/255,batch_size=300,start=zero,surrogate_epochs=50,steps=40,step=0.25/255"
    aap = made(stripes, f"aap[strength=0.3,surrogate_lr=0.1,{options}]")
    tap = made(stripes, f"tap[restarts=1,{options}]")
    model = aap._network(stripes.train, make_run(stripes, store=shared_store))
    wanted = (stripes.train.labels + 1) % 3
    losses = {}
    with frozen(model):
        for attack in (aap, tap):
            run = make_run(stripes)
            noise, _ = attack._search(
                attack._loss(model, stripes.train, run), stripes.train, wanted, run
            )
            images, rng = stripes.train.pixels() + noise, make_run(stripes, 3).rng
            with torch.no_grad():
                draws = [model(contrastive(images, rng, 0.3)) for _ in range(10)]
            losses[attack.info.name] = sum(F.cross_entropy(x, wanted).item() for x in draws) / 10
    assert losses["aap"] < 0.6 * losses["tap"], losses


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["push", "pull"])
def test_entf_moves_features_away_from_the_own_mean(
    objective: str, stripes: Dataset, shared_store: Store
) -> None:
    attack = made(stripes, f"entf[objective={objective},adv_steps=2,adv_radius=1/255,{QUICK}]")
    images, model = crafted(attack, stripes, shared_store)
    train = stripes.train
    means = class_means(model, train, make_run(stripes))
    nearest = {}
    with torch.no_grad():
        for name, x in (("clean", train.pixels()), ("entf", images)):
            distances = torch.cdist(penultimate(model, x), means)
            own = F.one_hot(train.labels, 3).bool()
            nearest[name] = (distances[own], distances.masked_fill(own, torch.inf).amin(1))
    if objective == "push":
        assert (nearest["entf"][0] > nearest["clean"][0]).float().mean() > 0.95
        assert nearest["entf"][0].mean() > 1.5 * nearest["clean"][0].mean()
    else:
        assert (nearest["entf"][1] < nearest["clean"][1]).float().mean() > 0.9
        assert nearest["entf"][1].mean() < nearest["entf"][0].mean(), "another mean is nearer"


def test_means_of_classes_are_those_of_clean_images(stripes: Dataset) -> None:
    run = make_run(stripes)
    model = run.network(ARCH).eval()
    means = class_means(model, stripes.train, run)
    with torch.no_grad():
        for label in range(3):
            mine = stripes.train.pixels()[stripes.train.labels == label]
            torch.testing.assert_close(means[label], penultimate(model, mine).mean(0))


def test_pull_leaves_out_the_own_class_and_classes_without_images(tiny: Dataset) -> None:
    """Three classes in name: one is the image's own, one has no images, so the last is left."""
    train = tiny.train
    data = Split(train.images, train.labels, (*train.class_names, "empty"))
    run = make_run(tiny)
    model = run.network(ARCH).eval()
    attack = made(tiny, "entf[objective=pull,shift=0]")
    means = class_means(model, data, run)
    loss = attack._loss(model, data, run)
    images = train.pixels()[:1]
    images = (images + images.flip(3)) / 2  # the same under a flip
    other = means[1 - int(train.labels[0])]
    expected = (penultimate(model, images) - other).square().mean()
    torch.testing.assert_close(loss(images, train.labels[:1]), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "tap[adv_radius=4/255]",
            "tap: adv_radius=0.01.* without reference=at; add reference=at, or leave",
        ),
        ("tap[adv_steps=3]", "tap: adv_steps=3 has no effect without reference=at; add"),
        ("entf[reference=standard,adv_steps=3]", "entf: adv_steps=3 has no effect without"),
        ("aap[shift=2]", "aap: shift=2 has no effect without augment=shift; add"),
        ("entf[strength=0.5]", "entf: strength=0.5 has no effect without augment=contrastive"),
        ("tap[eps=8]", r"eps must be a number in \(0, 1\], got 8; divide by 255"),
        ("aap[objective=push]", "objective must be one of targeted, untargeted, got push"),
        ("tap[norm=l2]", "norm must be linf, got l2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    spec: str, message: str, tiny: Dataset
) -> None:
    with pytest.raises(UserError, match=message):
        made(tiny, spec)


@pytest.mark.parametrize(
    "spec", ["tap", "aap", "tap[objective=untargeted]", "entf[objective=pull]"]
)
def test_one_class_has_no_other(spec: str) -> None:
    with pytest.raises(UserError, match="needs a class other than the image's own"):
        build_attack(spec).resolve(Facts("test", 1, (3, 8, 8), 1, ARCH))


def test_pulling_needs_another_class_with_images(tiny: Dataset) -> None:
    one = tiny.train.subset((tiny.train.labels == 1).nonzero().squeeze(1))
    with pytest.raises(UserError, match="needs images of at least 2 classes, got 1"):
        made(tiny, "entf[objective=pull]").craft(one, make_run(tiny))
