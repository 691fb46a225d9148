"""HYPO's claim: the noise lowers a cleanly trained network's loss on every image."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import make_run
from uebench.common.errors import UserError
from uebench.data import Dataset, load_dataset
from uebench.data.poison import Poison
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack
from uebench.store.store import Store

SPEC = "hypo[surrogate_epochs=60,steps=15,step=2/255]"


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return load_dataset("synthetic[n_train=300,n_test=30,n_classes=3,size=24]")


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the surrogate of these tests is trained once."""
    return Store(tmp_path_factory.mktemp("hypo") / "store")


def made(dataset: Dataset, spec: str = SPEC) -> Attack:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet8[width=8]")
    return build_attack(spec).resolve(facts)


def surrogate(dataset: Dataset, store: Store) -> nn.Module:
    """Return the network that the attack took: the store's."""
    run = make_run(dataset, 9, store=store)  # another generator, the same poison seed
    model = run.surrogate(dataset.train, "resnet8[width=8]", epochs=60)
    assert len(list((store.base / "kept").iterdir())) == 1, "it was trained again"
    return model


def losses(model: nn.Module, dataset: Dataset, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(images.float() / 255), labels, reduction="none")


def crafted(dataset: Dataset, store: Store, spec: str = SPEC) -> tuple[Poison, nn.Module]:
    poison = made(dataset, spec).craft(dataset.train, make_run(dataset, store=store))
    return poison, surrogate(dataset, store)


@pytest.mark.slow
def test_noise_lowers_the_surrogates_loss_image_by_image(
    pictures: Dataset, shared_store: Store
) -> None:
    poison, model = crafted(pictures, shared_store)
    train = pictures.train
    clean = losses(model, pictures, train.images, train.labels)
    after = losses(model, pictures, poison.images, train.labels)
    assert (after <= clean + 1e-4).float().mean() > 0.9
    assert after.mean() < 0.5 * clean.mean()
    assert 0 <= poison.meta["surrogate_held_out_acc"] <= 1


def test_towards_the_next_class(pictures: Dataset, shared_store: Store) -> None:
    poison, model = crafted(pictures, shared_store, SPEC.replace("]", ",towards=next]"))
    train = pictures.train
    wanted = (train.labels + 1) % 3
    with torch.no_grad():
        named = model(poison.images.float() / 255).argmax(1)
    assert (named == wanted).float().mean() > 0.7
    assert torch.equal(poison.labels, train.labels), "labels stay as they are"


def test_the_authors_norm(pictures: Dataset, shared_store: Store) -> None:
    poison, model = crafted(
        pictures, shared_store, "hypo[norm=l2,eps=0.5,step=0.1,steps=15,surrogate_epochs=60]"
    )
    assert 0.4 < poison.meta["l2_max"] <= 0.5 + 0.5 / 255 * (3 * 24 * 24) ** 0.5
    train = pictures.train
    clean = losses(model, pictures, train.images, train.labels)
    assert losses(model, pictures, poison.images, train.labels).mean() < 0.5 * clean.mean()


def test_the_default_budgets_and_step(pictures: Dataset) -> None:
    linf, l2 = made(pictures, "hypo").options(), made(pictures, "hypo[norm=l2]").options()
    assert (linf["eps"], linf["step"]) == pytest.approx((8 / 255, 0.8 / 255))
    assert (l2["eps"], l2["step"]) == pytest.approx((0.5, 0.05))
    assert (linf["steps"], linf["surrogate_epochs"], linf["towards"]) == (100, 150, "label")


def test_a_stored_surrogate_changes_no_number(pictures: Dataset, store: Store) -> None:
    attack = made(pictures, "hypo[surrogate_epochs=5,steps=3,step=2/255]")
    first = attack.craft(pictures.train, make_run(pictures, store=store))
    again = attack.craft(pictures.train, make_run(pictures, store=store))
    alone = attack.craft(pictures.train, make_run(pictures))
    assert (first.images != pictures.train.images).any()
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, alone.images)


def test_one_class_has_no_next_one(pictures: Dataset) -> None:
    facts = Facts("test", 1, pictures.shape, 1, "resnet9")
    assert build_attack("hypo").resolve(facts)
    with pytest.raises(UserError, match="hypo needs at least 2 classes"):
        build_attack("hypo[towards=next]").resolve(facts)


def test_levels_instead_of_a_fraction_are_refused(pictures: Dataset) -> None:
    with pytest.raises(ValueError, match=r"divide by 255, or set norm=l2"):
        made(pictures, "hypo[eps=8]")
