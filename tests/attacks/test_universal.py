"""P3 and P4: universal perturbations that turn images of any class into one, spread by class."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import make_run
from uebench.data import Dataset, load_dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack
from uebench.store.store import Store

OPTIONS = "surrogate_epochs=40,eps=4,batch_size=64,steps=40"
CLASSES = 3


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return load_dataset(f"synthetic[n_train=300,n_test=30,n_classes={CLASSES},size=24]")


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the surrogate of these tests is trained once."""
    return Store(tmp_path_factory.mktemp("universal") / "store")


def noise(data: Dataset, spec: str, store: Store | None = None) -> Tensor:
    facts = Facts("test", data.n_classes, data.shape, 1, "resnet8[width=8]")
    return build_attack(spec).resolve(facts).perturb(data.train, make_run(data, store=store))


def patterns(delta: Tensor, labels: Tensor) -> Tensor:
    """Return the pattern of each class, which all of its images have."""
    first = torch.stack([delta[labels == k][0] for k in range(CLASSES)])
    assert torch.equal(delta, first[labels]), "one pattern per class"
    return first


@pytest.mark.parametrize(("name", "offset"), [("p3", 1), ("p4", 0)])
def test_images_of_every_class_are_taken_for_the_class_that_the_perturbation_leads_to(
    name: str, offset: int, pictures: Dataset, shared_store: Store
) -> None:
    labels = pictures.train.labels
    own = patterns(noise(pictures, f"{name}[{OPTIONS}]", shared_store), labels)
    model = make_run(pictures, 9, store=shared_store).surrogate(
        pictures.train, "resnet8[width=8]", epochs=40
    )
    assert len(list((shared_store.base / "kept").iterdir())) == 1, "one network for both"
    clean = pictures.train.pixels()
    for label, pattern in enumerate(own):
        target = torch.full_like(labels, (label + offset) % CLASSES)
        with torch.no_grad():
            before, after = (model(x) for x in (clean, (clean + pattern).clamp(0, 1)))
        assert (after.argmax(1) == target).float().mean() > 0.8
        assert F.cross_entropy(after, target) < 0.5 * F.cross_entropy(before, target)


def test_p3_is_p4_with_the_patterns_of_the_next_class(
    pictures: Dataset, shared_store: Store
) -> None:
    labels = pictures.train.labels
    next_, own = (
        patterns(noise(pictures, f"{name}[{OPTIONS}]", shared_store), labels)
        for name in ("p3", "p4")
    )
    assert torch.equal(next_, own[[1, 2, 0]])
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize(
    ("budget", "order", "eps"),
    [("", 2.0, 0.5), ("eps=1", 2.0, 1.0), ("norm=linf", float("inf"), 8 / 255)],
)
def test_the_patterns_reach_the_budget_and_keep_it(
    budget: str, order: float, eps: float, pictures: Dataset, shared_store: Store
) -> None:
    options = ",".join(filter(None, ("surrogate_epochs=40,batch_size=64,steps=8", budget)))
    delta = noise(pictures, f"p4[{options}]", shared_store)
    lengths = delta.flatten(1).norm(p=order, dim=1)
    assert torch.allclose(lengths, torch.tensor(eps), rtol=1e-3)


@pytest.mark.parametrize("name", ["p3", "p4"])
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs at least 2 classes"):
        build_attack(name).resolve(Facts("test", 1, (3, 8, 8), 1, "resnet8"))


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_the_cost_grows_with_the_number_of_classes(n_classes: int) -> None:
    attack = build_attack("p3").resolve(Facts("test", n_classes, (3, 8, 8), 1, "resnet8"))
    assert attack.image_passes(50_000) == 150 * 50_000 + n_classes * 500 * 256
