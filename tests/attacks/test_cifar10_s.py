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
