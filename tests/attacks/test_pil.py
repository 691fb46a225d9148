"""PIL's claim: its noise is linearly separable, and the released image points away from it."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests.conftest import make_run
from uebench.attacks.pil import PIL
from uebench.data import Dataset, load_dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return load_dataset("synthetic[n_train=600,n_test=30,n_classes=4,size=16]")


def built(dataset: Dataset, spec: str = "pil") -> PIL:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9")
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, PIL)
    return attack


@pytest.mark.parametrize("layers", [1, 2])
def test_a_linear_probe_reads_the_class_from_the_noise(pictures: Dataset, layers: int) -> None:
    attack = built(pictures, f"pil[layers={layers}]")
    released = attack.craft(pictures.train, make_run(pictures)).images
    change = (released.float() - pictures.train.images).flatten(1).numpy()
    labels = pictures.train.labels.numpy()
    probe = LogisticRegression(max_iter=200).fit(change[:400], labels[:400])
    assert probe.score(change[400:], labels[400:]) > 0.99


def test_the_sign(pictures: Dataset) -> None:
    """The surrogate reads the class from x - released, and another one from released - x."""
    attack, labels = built(pictures), pictures.train.labels
    surrogate = attack.surrogate(pictures.train, make_run(pictures))
    released = attack.craft(pictures.train, make_run(pictures)).images
    change = (released.float() - pictures.train.images).flatten(1) / 255
    as_noise = (-change @ surrogate.T).argmax(1)
    as_change = (change @ surrogate.T).argmax(1)
    assert (as_noise == labels).float().mean() > 0.95
    assert (as_change == labels).float().mean() < 0.05


def objective(surrogate: Tensor, noise: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of the definition, written with torch's own functions."""
    k = len(surrogate)
    own = F.cross_entropy(noise @ surrogate.T, labels, reduction="sum")
    released = F.log_softmax((images - noise) @ surrogate.T, 1)
    uniform = torch.full_like(released, 1 / k)
    return 0.9 * own + 0.1 * F.kl_div(released, uniform, reduction="sum")


def test_the_search_follows_the_gradient_of_the_definition(pictures: Dataset) -> None:
    attack, train = built(pictures, "pil[steps=7]"), pictures.train
    surrogate = attack.surrogate(train, make_run(pictures)) * 5
    images, labels = train.pixels(slice(0, 50)).flatten(1), train.labels[:50]
    searched = attack.searched(surrogate, images, labels, make_run(pictures, 4))
    rng = make_run(pictures, 4).rng
    noise = torch.rand(images.shape, generator=rng) * 2 * attack.eps - attack.eps
    first = objective(surrogate, noise, images, labels)
    for _ in range(7):
        point = noise.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(surrogate, point, images, labels), point)
        noise = (noise - attack.eps / 10 * gradient.sign()).clamp(-attack.eps, attack.eps)
    # a gradient that is almost zero may have either sign
    assert (searched - noise).abs().lt(1e-6).float().mean() > 0.999
    assert objective(surrogate, searched, images, labels) < first


def test_the_surrogate_learns_and_one_layer_differs_from_two(pictures: Dataset) -> None:
    facts = Facts("test", 4, pictures.shape, 1, "resnet9")
    easy = build_attack("random_class[eps=64/255]").resolve(facts)
    train = pictures.train.with_images(easy.craft(pictures.train, make_run(pictures)).images)
    longer = "batch_size=64"
    one = built(pictures, f"pil[layers=1,{longer}]").surrogate(train, make_run(pictures))
    two = built(pictures, f"pil[layers=2,{longer}]").surrogate(train, make_run(pictures))
    assert one.shape == two.shape == (4, 768)
    assert not torch.allclose(one, two)
    for surrogate in (one, two):
        accuracy = (train.pixels().flatten(1) @ surrogate.T).argmax(1) == train.labels
        assert accuracy.float().mean() > 0.9


def test_bad_options_and_one_class() -> None:
    with pytest.raises(ValueError, match="norm must be linf"):
        build_attack("pil[norm=l2]")
    with pytest.raises(ValueError, match=r"layers must be a whole number in \[1, 2\], got 3"):
        build_attack("pil[layers=3]")
    with pytest.raises(ValueError, match="at least 2 classes"):
        build_attack("pil").resolve(Facts("test", 1, (3, 8, 8), 1, "resnet9"))
