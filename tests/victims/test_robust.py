"""Robust accuracy: the ball, and that PGD finds what is there."""

import pytest
import torch
from torch import nn

from tests.conftest import make_run
from uebench.data import Dataset, Split
from uebench.suite.single import craft, train
from uebench.victims.robust import robust_record


class Threshold(nn.Module):
    """Calls an image class 1 where its mean is above one half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-score, score], 1) * 100


@pytest.mark.parametrize(("radius", "left"), [(0.02, 1.0), (0.08, 0.5), (0.3, 0.0)])
def test_an_attack_reaches_as_far_as_its_radius(radius: float, left: float) -> None:
    """Means are 0.05 and 0.2 from the threshold, which linf moves by the radius and no more."""
    means = torch.tensor([0.3, 0.45, 0.55, 0.7])
    images = (means.view(-1, 1, 1, 1) * 255).round().to(torch.uint8).expand(4, 3, 8, 8)
    test = Split(images.contiguous(), torch.tensor([0, 0, 1, 1]), ("dark", "light"))
    dataset = Dataset("made", test, test, "x")
    record = robust_record(Threshold(), test, "linf", radius, make_run(dataset))
    assert record == {"robust_acc": left, "robust_norm": "linf", "robust_radius": radius}


def test_it_reaches_the_python_api(tiny: Dataset) -> None:
    poison = craft("lsp", tiny, protocol="quick")
    options = {"arch": "resnet9[width=2]", "epochs": 1}
    assert train(poison, "standard", tiny, robust=True, **options)["robust_norm"] == "l2"
    assert "robust_acc" not in train(poison, "standard", tiny, **options)
