"""CIFAR10-S is EM's noise everywhere except for the pixel of OPS."""

import torch

from tests.conftest import make_run, random_dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack


def test_noise_of_em_and_pixel_of_ops() -> None:
    dataset = random_dataset([8, 8])
    facts = Facts("test", 2, dataset.shape, 1, "resnet8[width=8]")
    quick = "[rounds=2,steps=2,batch_size=8]"
    images = {
        spec: build_attack(spec).resolve(facts).craft(dataset.train, make_run(dataset)).images
        for spec in (f"em{quick}", f"cifar10_s{quick}", "ops")
    }
    noise, both, pixel = images.values()
    set_here = (pixel != dataset.train.images).any(1, keepdim=True).expand_as(pixel)
    assert set_here.any()
    assert torch.equal(both[set_here], pixel[set_here])
    assert torch.equal(both[~set_here], noise[~set_here])
    assert not torch.equal(noise, dataset.train.images)


def test_the_legacy_export_drops_negative_noise_but_not_the_pixels() -> None:
    dataset = random_dataset([8, 8])
    facts = Facts("test", 2, dataset.shape, 1, "resnet8[width=8]")
    clean = dataset.train.images
    legacy = build_attack("cifar10_s[legacy_export=true,rounds=2,steps=2,batch_size=8]")
    images = legacy.resolve(facts).craft(dataset.train, make_run(dataset)).images
    pixel = build_attack("ops").resolve(facts).craft(dataset.train, make_run(dataset)).images
    set_here = (pixel != clean).any(1, keepdim=True).expand_as(pixel)
    assert (pixel < clean).any(), "some of the pixels get darker"
    assert torch.equal(images[set_here], pixel[set_here])
    assert (images[~set_here] >= clean[~set_here]).all()
    assert (images[~set_here] > clean[~set_here]).any()
