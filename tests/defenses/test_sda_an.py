"""SDA+AN: the noise of a simple network, and the augmentation that replaces crop and flip."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.cells.test_plan import cells
from tests.conftest import make_run
from uebench import Defense, Facts, Protocol, Split, Training
from uebench.augment import contrastive
from uebench.data import Dataset
from uebench.methods.registry import build_attack, build_defense
from uebench.store.store import Store

FAST = "epochs=4,width=64,batch_size=20"


def sda_an(data: Dataset, options: str = FAST) -> Defense:
    return build_defense(f"sda_an[{options}]").resolve(
        Facts("test", data.n_classes, data.shape, 4, "resnet8")
    )


def poisoned(data: Dataset) -> Split:
    facts = Facts("test", data.n_classes, data.shape, 4, "resnet8")
    poison = build_attack("lsp").resolve(facts).craft(data.train, make_run(data))
    return data.train.with_images(poison.images)


def linear_loss(weight: Tensor, data: Split, images: Tensor) -> float:
    logits = (images.float() / 255).flatten(1) @ weight.T
    return nn.functional.cross_entropy(logits, data.labels).item()


def test_the_noise_keeps_its_budget_and_labels_and_uses_it(tiny: Dataset) -> None:
    data = poisoned(tiny)
    noisy = sda_an(tiny).prepare(data, make_run(tiny))
    change = (noisy.images.int() - data.images.int()).abs()
    assert change.max() == 8
    assert noisy.images.dtype == torch.uint8
    assert torch.equal(noisy.labels, data.labels)
    assert sda_an(tiny, f"{FAST},noise=false").prepare(data, make_run(tiny)) is data


def test_the_noise_hurts_a_linear_model_of_the_poison_more_than_random_noise(
    tiny: Dataset,
) -> None:
    data = poisoned(tiny)
    noisy = sda_an(tiny).prepare(data, make_run(tiny))
    weight = torch.zeros(data.n_classes, data.images[0].numel(), requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=1e-3)
    for _ in range(100):
        logits = (data.images.float() / 255).flatten(1) @ weight.T
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, data.labels).backward()
        optimizer.step()
    weight = weight.detach()
    signs = torch.randint(0, 2, data.images.shape, generator=torch.Generator().manual_seed(0))
    random = (data.images.int() + 16 * signs - 8).clamp(0, 255)
    before = linear_loss(weight, data, data.images)
    raised = linear_loss(weight, data, noisy.images) - before
    assert raised > 3 * abs(linear_loss(weight, data, random) - before)
    assert raised > 0.02


def test_training_seeds_share_one_noisy_set(tiny: Dataset, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = sda_an(tiny).prepare(tiny.train, make_run(tiny, seed=1, store=store))
    second = sda_an(tiny, f"{FAST},augment=false").prepare(tiny.train, make_run(tiny, seed=2))
    assert torch.equal(first.images, second.images)
    kept = [item for item in tmp_path.rglob("*") if item.is_file()]
    sda_an(tiny).prepare(tiny.train, make_run(tiny, seed=3, store=store))
    assert kept == [item for item in tmp_path.rglob("*") if item.is_file()], "computed once"


def test_the_augmentation_replaces_the_protocols_crop_and_flip(tiny: Dataset) -> None:
    protocol = Protocol(crop_padding=4, flip=True)
    adjusted = sda_an(tiny).adjust(protocol)
    assert (adjusted.crop_padding, adjusted.flip) == (0, False)
    assert sda_an(tiny, f"{FAST},augment=false").adjust(protocol) == protocol
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 2, requires_grad=True)

    images, run = tiny.train.pixels(), make_run(tiny)
    sda_an(tiny).loss(Recorder(), images, tiny.train.labels, run)
    assert torch.equal(seen[0], contrastive(images, make_run(tiny).rng))
    sda_an(tiny, f"{FAST},augment=false").loss(Recorder(), images, tiny.train.labels, run)
    assert torch.equal(seen[1], images)


def test_images_are_mirrored_only_where_the_protocol_does(tiny: Dataset, tmp_path: Path) -> None:
    facts = Facts("test", 2, tiny.shape, 4, "resnet8")
    flipped = build_defense(f"sda_an[{FAST}]").resolve(facts)
    digits = build_defense(f"sda_an[{FAST}]").resolve(replace(facts, flip=False))
    asked = build_defense(f"sda_an[{FAST},mirror=true]").resolve(replace(facts, flip=False))
    images = tiny.train.pixels()
    seen = digits.after_crop(images, make_run(tiny))
    assert torch.equal(seen, contrastive(images, make_run(tiny).rng, mirror=False))
    assert not torch.equal(seen, flipped.after_crop(images, make_run(tiny)))
    assert asked == flipped
    assert "mirror" not in flipped.recipe(), "the keys of older results hold"
    assert digits.recipe()["mirror"] is False
    # the noise is the same
    store = Store(tmp_path)
    flipped.prepare(tiny.train, make_run(tiny, store=store))
    kept = [item for item in tmp_path.rglob("*") if item.is_file()]
    digits.prepare(tiny.train, make_run(tiny, store=store))
    assert kept == [item for item in tmp_path.rglob("*") if item.is_file()]


def test_digits_are_planned_without_mirroring(tiny: Dataset) -> None:
    for flip in (False, True):
        (cell,) = cells(tiny, attacks="none", defenses="sda_an", set={"protocol.flip": flip})
        assert cell.defense.options()["mirror"] is flip


@pytest.mark.parametrize("option", ["eps=0", "eps=8", "steps=0", "step=2", "width=0", "epochs=0"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        build_defense(f"sda_an[{option}]")


def test_a_search_starts_at_the_image_itself(tiny: Dataset) -> None:
    data = poisoned(tiny)
    fine = f"{FAST},steps=3,noise_step=1/255"
    change = sda_an(tiny, fine).prepare(data, make_run(tiny)).images.int() - data.images.int()
    assert change.abs().max() == 3, "three steps of a level reach no further"


def test_the_simple_network_sees_images_without_crop_and_flip(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def one_epoch(model: nn.Module, *args: object) -> None:
        data, training = args[1], args[-1]
        assert isinstance(data, Split)
        assert isinstance(training, Training)
        seen.append(training.view(data.images, torch.Generator()))

    monkeypatch.setattr("uebench.defenses.sda_an.train_epoch", one_epoch)
    sda_an(tiny, "epochs=1,width=8").prepare(tiny.train, make_run(tiny))
    assert torch.equal(seen[0], tiny.train.images / 255)
