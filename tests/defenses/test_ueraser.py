"""UEraser's loss is the largest of its draws, image by image; its presets and its epochs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import make_run
from uebench.data import Dataset
from uebench.learn.protocol import named_protocol
from uebench.methods.base import Facts
from uebench.methods.registry import build_defense


class Watched(nn.Module):
    """A linear network without batch norm that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 2)
        self.seen: list[torch.Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach())
        self.modes.append(self.training)
        return self.linear(x.flatten(1))


def facts(dataset: str = "cifar10", epochs: int = 200) -> Facts:
    return Facts(dataset, 2, (3, 16, 16), epochs, "resnet9")


def spied(spec: str, tiny: Dataset, epoch: int = 0) -> tuple[Watched, torch.Tensor]:
    """Return a network that has seen one loss of a defense, and that loss, after backward."""
    made = build_defense(spec).resolve(facts(epochs=8))
    run = make_run(tiny, epochs=8)
    run.epoch = epoch
    torch.manual_seed(0)
    model = Watched()
    loss = made.loss(model, tiny.train.pixels(), tiny.train.labels, run)
    loss.backward()
    return model, loss.detach()


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ("select=full,bn=tiled", [(120, True)]),
        ("select=full,bn=loop", [(40, True)] * 3),
        ("select=no_grad", [(40, False)] * 3 + [(40, True)]),
    ],
)
def test_batch_norm_sees_what_the_options_say(
    options: str, seen: list[tuple[int, bool]], tiny: Dataset
) -> None:
    model, _ = spied(f"ueraser[repeats=3,{options}]", tiny)
    sizes = [len(images) for images in model.seen]
    assert list(zip(sizes, model.modes, strict=True)) == seen, "images and train mode, in turn"
    assert model.training


@pytest.mark.parametrize("options", ["select=full", "select=full,bn=loop", "select=no_grad"])
def test_loss_and_gradient_are_those_of_the_largest_draw(options: str, tiny: Dataset) -> None:
    model, loss = spied(f"ueraser[repeats=3,{options}]", tiny)
    copies = torch.cat(model.seen)[: 3 * len(tiny.train)]
    torch.manual_seed(0)
    fresh = Watched()
    labels = tiny.train.labels.repeat(3)
    each = F.cross_entropy(fresh(copies), labels, reduction="none").view(3, -1)
    definition = each.amax(0).mean()
    definition.backward()
    assert torch.allclose(loss, definition.detach(), atol=1e-6)
    ours, exact = model.linear.weight.grad, fresh.linear.weight.grad
    assert ours is not None
    assert exact is not None
    assert torch.allclose(ours, exact, atol=1e-5)
    assert (each.argmax(0).bincount(minlength=3) > 0).sum() > 1, "one copy was always the hardest"


def test_one_draw_after_the_adversarial_epochs(tiny: Dataset) -> None:
    n = len(tiny.train)
    assert len(torch.cat(spied("ueraser", tiny, epoch=1)[0].seen)) == 5 * n  # 2 of 8 epochs
    assert len(torch.cat(spied("ueraser", tiny, epoch=2)[0].seen)) == n
    assert len(torch.cat(spied("ueraser_lite", tiny, epoch=0)[0].seen)) == n
    assert len(torch.cat(spied("ueraser_max", tiny, epoch=7)[0].seen)) == 5 * n


def test_one_repeat_is_lite(tiny: Dataset) -> None:
    assert torch.equal(spied("ueraser[repeats=1]", tiny)[1], spied("ueraser_lite", tiny)[1])


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ("ueraser_lite[repeats=3]", "ueraser_lite"),
        ("ueraser_lite[repeats=1,select=no_grad,bn=loop]", "ueraser_lite"),
        ("ueraser[adversarial_epochs=0,repeats=2]", "ueraser[adversarial_epochs=0]"),
        ("augment[adversarial_epochs=0,repeats=3]", "augment"),
    ],
)
def test_without_adversarial_epochs_the_copies_options_are_in_no_key(spec: str, plain: str) -> None:
    alike, one = (build_defense(each).resolve(facts()).recipe() for each in (spec, plain))
    assert alike == one


@pytest.mark.parametrize(
    ("dataset", "epochs", "share"),
    [("cifar10", 200, 50), ("cifar100", 300, 30), ("svhn", 150, 30), ("other", 12, 3), ("x", 2, 1)],
)
def test_adversarial_epochs_are_the_papers_share(dataset: str, epochs: int, share: int) -> None:
    assert build_defense("ueraser").resolve(facts(dataset, epochs)).adversarial_epochs == share


def test_clipping_is_asked_for_but_not_forced() -> None:
    made = build_defense("ueraser").method
    assert made.adjust(named_protocol("paper")).clip_norm == 5
    assert made.adjust(named_protocol("paper", clip_norm=1)).clip_norm == 1


def test_the_librarys_pipeline_runs(tiny: Dataset) -> None:
    spec = "ueraser[engine=kornia,kornia=0.9,draw=batch,repeats=2]"
    assert torch.isfinite(spied(spec, tiny)[1])
