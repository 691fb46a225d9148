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
