"""Adversarial training's point stays in its ball and raises the loss; the paper's half rule."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_run
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_defense

FACTS = {"dataset": "test", "n_classes": 2, "shape": (3, 16, 16), "epochs": 4, "surrogate": "x"}


@pytest.mark.parametrize(("norm", "radius"), [("linf", 4 / 255), ("l2", 0.5)])
def test_the_point_is_in_the_ball_and_harder(norm: str, radius: float, tiny: Dataset) -> None:
    made = build_defense(f"at[norm={norm},radius={radius}]").resolve(Facts(**FACTS))
    run = make_run(tiny)
    model = run.network("resnet9[width=4]")
    model.train()
    images, labels = tiny.train.pixels(), tiny.train.labels
    for _ in range(100):
        model(images)  # so that batch norm has statistics
    point = made.adversarial(model, images, labels, run)
    delta = (point - images).flatten(1)
    lengths = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert lengths.max() <= radius + 1e-5
    assert lengths.mean() > 0.5 * radius
    assert point.min() >= 0
    assert point.max() <= 1
    model.eval()
    with torch.no_grad():
        before = F.cross_entropy(model(images), labels)
        assert F.cross_entropy(model(point), labels) > before


def test_the_network_learns_the_points_and_is_searched_in_eval_mode(tiny: Dataset) -> None:
    made = build_defense("at[steps=3]").resolve(Facts(**FACTS))
    images, labels = tiny.train.pixels(), tiny.train.labels
    model = make_run(tiny).network("resnet9[width=4]").train()
    points = made.adversarial(model, images, labels, make_run(tiny))
    seen: list[tuple[bool, torch.Tensor]] = []
    model.register_forward_pre_hook(lambda module, x: seen.append((module.training, x[0].detach())))
    made.loss(model, images, labels, make_run(tiny)).backward()
    assert [training for training, _ in seen] == [False, False, False, True]
    assert torch.equal(seen[-1][1], points)
    assert not torch.equal(points, images)
    assert all(p.grad is not None for p in model.parameters())


def test_the_radius_is_half_the_poisons_budget() -> None:
    made = build_defense("at").resolve(Facts(**FACTS, norm="l2", eps=1.304))
    assert (made.norm, made.radius) == ("l2", 0.652)
    assert made.step == pytest.approx(0.652 / 5)
    clean = build_defense("at").resolve(Facts(**FACTS))
    assert (clean.norm, clean.radius) == ("linf", 4 / 255)


def test_bad_radii() -> None:
    with pytest.raises(ValueError, match="divide by 255"):
        build_defense("at[radius=4]").resolve(Facts(**FACTS))
    with pytest.raises(ValueError, match="give the radius as a number"):
        build_defense("at[norm=l2]").resolve(Facts(**FACTS))
    for preset, bad in (("at8", "radius=8"), ("trades", "radius=8"), ("at_l2", "radius=half")):
        with pytest.raises(ValueError, match=f"^{preset}: "):
            build_defense(f"{preset}[{bad}]").resolve(Facts(**FACTS))


@pytest.mark.parametrize(
    ("name", "norm", "radius", "steps", "step"),
    [
        ("at4", "linf", 4 / 255, 10, 0.8 / 255),
        ("at8", "linf", 8 / 255, 10, 2 / 255),
        ("at_l2", "l2", 0.5, 10, 0.1),
        ("at_l2[radius=0.75]", "l2", 0.75, 10, 0.15),
    ],
)
def test_the_presets_are_those_of_the_field_whatever_the_budget(
    name: str, norm: str, radius: float, steps: int, step: float
) -> None:
    for budget in ({}, {"norm": "l2", "eps": 1.304}, {"norm": "linf", "eps": 16 / 255}):
        preset = build_defense(name).resolve(Facts(**FACTS, **budget))
        assert preset.options() | {"augment": "none"} == {
            "norm": norm,
            "radius": pytest.approx(radius),
            "steps": steps,
            "step": pytest.approx(step),
            "augment": "none",
            "times_epochs": 1,
        }


def test_an_augmentation_that_is_off_leaves_the_keys_of_older_results() -> None:
    plain = build_defense("at").resolve(Facts(**FACTS))
    assert set(plain.recipe()) == {"norm", "radius", "steps", "step"}
    augmented = build_defense("at[augment=cutout]").resolve(Facts(**FACTS))
    assert augmented.recipe()["augment"] == "cutout"


@pytest.mark.parametrize("augment", ["cutout", "mixup", "randaugment", "ueraser_lite"])
def test_an_augmentation_comes_before_the_search(augment: str, tiny: Dataset) -> None:
    made = build_defense(f"at[steps=2,augment={augment}]").resolve(Facts(**FACTS))
    model = make_run(tiny).network("resnet9[width=4]").train()
    images, labels = tiny.train.pixels(), tiny.train.labels
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    loss = made.loss(model, images, labels, make_run(tiny))
    loss.backward()
    first, last = seen[0], seen[-1]
    assert (first - images).abs().max() > 8 / 255, "more than the search alone would change"
    assert (last - first).abs().max() <= 8 / 255 + 1e-5, "the search stays near what was augmented"
    if augment == "mixup":
        own = F.cross_entropy(model(last).float(), labels)
        assert loss.item() != pytest.approx(own.item(), abs=1e-4), "both labels count"


def test_trades_adds_the_divergence_between_clean_and_adversarial_predictions(
    tiny: Dataset,
) -> None:
    images, labels = tiny.train.pixels(), tiny.train.labels
    losses = {}
    for beta in (0, 1, 6):
        trades = build_defense(f"trades[beta={beta},steps=2]").resolve(Facts(**FACTS))
        model = make_run(tiny).network("resnet9[width=4]").train()
        seen: list[torch.Tensor] = []
        model.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.detach()))
        losses[beta] = trades.loss(model, images, labels, make_run(tiny)).item()
    clean, moved = seen[-1].chunk(2)
    p, q = clean.softmax(1), moved.softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean().item()
    assert divergence > 0
    assert losses[0] == pytest.approx(F.cross_entropy(clean, labels).item(), rel=1e-4)
    assert losses[1] - losses[0] == pytest.approx(divergence, rel=1e-2)
    assert losses[6] - losses[0] == pytest.approx(6 * divergence, rel=1e-2)


def test_trades_refuses_mixed_labels() -> None:
    with pytest.raises(ValueError, match="augment=mixup has no single label"):
        build_defense("trades[augment=mixup]").resolve(Facts(**FACTS))
