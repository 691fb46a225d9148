"""Networks: their known sizes, which form they take at which side, and what a key says of them."""

import sys

import pytest
import torch

from uebench.models import build_network, network_recipe, parse_arch, penultimate, shown_arch

SMALL = (3, 32, 32)
LARGE = (3, 224, 224)
FORMED = ("resnet18", "resnet50", "densenet121", "mobilenet_v2")


def size(arch: str, n_classes: int, shape: tuple[int, int, int]) -> int:
    with torch.device("meta"):  # sizes alone
        return sum(p.numel() for p in build_network(arch, n_classes, shape, 0).parameters())


@pytest.mark.parametrize(
    ("arch", "cifar_10", "imagenet_1000"),
    [
        ("resnet18", 11_173_962, 11_689_512),
        ("resnet50", 23_520_842, 25_557_032),
        ("densenet121", 6_956_298, 7_978_856),
        ("mobilenet_v2", 2_296_922, 3_504_872),
    ],
)
def test_networks_have_their_known_numbers_of_parameters(
    arch: str, cifar_10: int, imagenet_1000: int
) -> None:
    """The CIFAR forms of the field's usual code at 10 classes, torchvision's at 1,000."""
    assert size(arch, 10, SMALL) == cifar_10
    assert size(arch, 1000, LARGE) == imagenet_1000


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "mobilenet_v2", "densenet121"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 19, 13), (1, 96, 96)])
def test_networks_take_any_shape_and_learn(arch: str, shape: tuple[int, int, int]) -> None:
    narrow = {"densenet121": "growth=4", "mobilenet_v2": "width=8"}.get(arch, "width=8")
    model = build_network(f"{arch}[{narrow}]" if max(shape) < 96 else arch, 7, shape, 0)
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


NARROW = ("resnet8", "resnet9", "resnet18[width=8]", "resnet50[width=8]", "mobilenet_v2[width=8]")


@pytest.mark.parametrize("arch", [*NARROW, "densenet121[growth=4]"])
def test_a_seed_makes_a_network_and_leaves_the_global_generator_alone(arch: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (build_network(arch, 3, SMALL, s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_weights_of_resnet18_are_what_they_were_before_other_networks_came() -> None:
    weights = build_network("resnet18[width=8]", 10, SMALL, 0).state_dict()
    assert weights["0.0.weight"][0, 0, 0].tolist() == pytest.approx(
        [-0.0014408393, 0.1032386199, -0.1583951116], abs=1e-8
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_widths_that_corrupt_the_heap_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"{name}: width must be a whole number in \\[8, 1024\\], got 7"
    ):
        parse_arch(f"{name}[width=7]")
    assert parse_arch(f"{name}[width=8]")[1]["width"] == 8


def test_the_ordinary_form_begins_at_96_px() -> None:
    def is_ordinary(arch: str, side: int) -> bool:
        with torch.device("meta"):
            return hasattr(build_network(arch, 10, (3, side, side), 0), "conv1")

    assert [is_ordinary("resnet18", side) for side in (64, 95, 96)] == [False, False, True]
    assert not is_ordinary("resnet18[form=cifar]", 224)
    assert is_ordinary("resnet18[form=imagenet]", 32)


def test_an_ordinary_mobilenet_draws_from_no_other_generator() -> None:
    model = build_network("mobilenet_v2", 10, (3, 96, 96), 0).train()
    images = torch.rand(2, 3, 96, 96)
    torch.manual_seed(0)
    first = model(images)
    torch.manual_seed(1)
    assert torch.equal(first, model(images))


def test_the_form_enters_the_key_where_it_is_the_ordinary_one() -> None:
    for arch in FORMED:
        assert network_recipe(arch, SMALL) == {"arch": arch}
        assert network_recipe(arch, LARGE) == {"arch": arch, "form": "imagenet"}
        assert network_recipe(f"{arch}[form=imagenet]", LARGE) == network_recipe(arch, LARGE)
        assert network_recipe(f"{arch}[form=cifar]", LARGE) == {"arch": arch}
    assert network_recipe("resnet9[width=8]", LARGE) == {"arch": "resnet9[width=8]"}
    assert shown_arch("resnet18[form=cifar]") == "resnet18[form=cifar]"


def test_an_option_that_the_ordinary_form_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width=8.*belongs to the CIFAR form.*add form=cifar"):
        network_recipe("resnet18[width=8]", LARGE)
    assert network_recipe("resnet18[form=cifar,width=8]", LARGE) == {"arch": "resnet18[width=8]"}


@pytest.mark.parametrize(
    ("arch", "told"),
    [
        ("resnet5", "did you mean resnet50"),
        ("resnet50[form=large]", "form must be one of auto, cifar, imagenet, got large"),
        ("densenet121[width=8]", "densenet121: no option width; it has growth, form"),
    ],
)
def test_bad_networks(arch: str, told: str) -> None:
    with pytest.raises((KeyError, ValueError)) as error:
        parse_arch(arch)
    assert told in str(error.value)


def test_torchvision_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    build_network("resnet18[width=8]", 10, SMALL, 0)
    with pytest.raises(ValueError, match=r"which does not load .* take resnet18\[form=cifar\]"):
        build_network("resnet18", 10, LARGE, 0)


@pytest.mark.parametrize("arch", [*NARROW, "densenet121[growth=4]", "airbench", "resnet18"])
def test_every_network_has_features_that_its_last_layer_turns_into_logits(arch: str) -> None:
    shape = LARGE if arch == "resnet18" else SMALL
    model = build_network(arch, 5, shape, 0).eval()
    images = torch.rand(3, *shape).requires_grad_(True)
    features = penultimate(model, images)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert features.shape == (3, linear.in_features)
    logits, ours = model(images), linear(features)
    factor = (logits * ours).sum() / ours.square().sum()  # some networks scale their logits
    torch.testing.assert_close(factor * ours, logits, atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(features.square().sum(), images)
    assert (gradient.flatten(1) != 0).any(1).all()


def test_a_network_without_a_linear_layer_has_no_features() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.Flatten())
    with pytest.raises(ValueError, match=r"Sequential has no linear layer .* such as resnet18"):
        penultimate(model, torch.rand(1, *SMALL))
