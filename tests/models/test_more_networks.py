"""VGG, WRN, SENet, shallow networks and those of timm: known sizes, any image, one seed."""

import sys
from itertools import pairwise

import pytest
import torch

from uebench.models import build_network, is_network, network_recipe, parse_arch, penultimate
from uebench.models.from_timm import check_timm

SMALL = (3, 32, 32)
VIT = "timm:vit_tiny_patch16_224[depth=1,patch_size=4]"
QUICK = (
    *("vgg11[width=8]", "vgg16[width=8]", "vgg19[width=8]", "wrn28_10[widen=1]"),
    *("senet18[width=16]", "lenet5", "mlp2[width=8]", "mlp3[width=8]", "linear"),
)


def size(arch: str, n_classes: int = 10, shape: tuple[int, int, int] = SMALL) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_network(arch, n_classes, shape, 0).parameters())


@pytest.mark.parametrize(
    ("arch", "n_parameters"),
    [
        ("vgg11", 9_231_114),
        ("vgg16", 14_728_266),
        ("vgg19", 20_040_522),
        ("wrn28_10", 36_479_194),
        ("senet18", 11_260_354),
        ("lenet5", 62_006),
        ("linear", 30_730),
        ("mlp2", (3072 + 1) * 512 + (512 + 1) * 10),
        ("mlp3", (3072 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 10),
    ],
)
def test_networks_have_the_numbers_of_parameters_of_the_fields_usual_code(
    arch: str, n_parameters: int
) -> None:
    assert size(arch) == n_parameters


def test_a_small_vit_has_the_parameters_that_its_definition_adds_up_to() -> None:
    """Patches, class token, positions, twelve blocks of attention and perceptron, norms, head."""
    width, patch, tokens = 384, 4, (32 // 4) ** 2 + 1
    layers = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    block = sum(a * b + b for a, b in layers) + 2 * 2 * width
    ends = 3 * patch**2 * width + width + width + tokens * width + 2 * width + 10 * width + 10
    assert size("timm:vit_small_patch16_224[patch_size=4]") == 12 * block + ends


@pytest.mark.parametrize("arch", QUICK)
@pytest.mark.parametrize("shape", [SMALL, (1, 19, 13), (3, 5, 40), (3, 64, 64)])
def test_they_take_images_of_any_shape_and_learn(arch: str, shape: tuple[int, int, int]) -> None:
    model = build_network(arch, 7, shape, 0)
    logits = model(torch.rand(3, *shape))
    assert logits.shape == (3, 7)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 6, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert penultimate(model, torch.rand(2, *shape)).shape[0] == 2


@pytest.mark.parametrize("arch", [*QUICK, VIT])
def test_a_seed_makes_a_network_and_leaves_the_global_generator_alone(arch: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (build_network(arch, 3, SMALL, s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_lenet_sees_small_images_in_the_middle_of_zeros() -> None:
    model = build_network("lenet5", 10, (1, 28, 28), 0)
    digits = torch.rand(2, 1, 28, 28)
    framed = torch.nn.functional.pad(digits, (2, 2, 2, 2))
    assert torch.equal(model(digits), model(framed))


def test_excitation_weighs_channels_between_zero_and_one() -> None:
    from uebench.models.preactivation import Excitation

    x = torch.rand(2, 32, 4, 4) + 0.1
    factors = Excitation(32)(x) / x
    assert ((factors > 0) & (factors < 1)).all()
    assert torch.allclose(factors, factors[:, :, :1, :1].expand_as(factors))


@pytest.mark.parametrize(
    ("network", "side"),
    [
        ("vit_tiny_patch16_224[depth=1]", 32),
        ("resnet10t", 32),
        ("swin_tiny_patch4_window7_224", 64),
    ],
)
def test_networks_of_timm_draw_nothing_while_they_train(network: str, side: int) -> None:
    model = build_network(f"timm:{network}", 5, (3, side, side), 0).train()
    images = torch.rand(4, 3, side, side)
    torch.manual_seed(0)
    first = model(images)
    torch.manual_seed(1)
    assert torch.equal(first, model(images))
    assert penultimate(model, images).shape[0] == 4


def test_the_key_of_a_network_of_timm_has_its_options_in_one_order() -> None:
    ways = ("depth=1,patch_size=4,mlp_ratio=0.2", "mlp_ratio=0.2,patch_size=4,depth=1")
    one, other = (network_recipe(f"timm:vit_tiny_patch16_224[{way}]", SMALL) for way in ways)
    assert one == other
    canonical = parse_arch(f"timm:vit_tiny_patch16_224[{ways[0]}]")[0]
    assert parse_arch(canonical)[0] == canonical == one["arch"]
    assert size(canonical) < size("timm:vit_tiny_patch16_224[depth=1,patch_size=4,mlp_ratio=0.4]")


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("timm:vit_smal_patch16_224", "did you mean vit_small_patch16_224"),
        ("timm:vit_tiny_patch16_224[patch_size=5]", "give patch_size=1 or 2 or 4 or 8 or 16 or 32"),
        ("timm:vit_tiny_patch16_224[foo=5]", "unexpected keyword argument 'foo'"),
        ("timm:vit_tiny_patch16_224[drop_rate=0.1]", "drop_rate is not supported"),
        ("timm:vit_tiny_patch16_224[img_size=64]", "img_size follows from the data set"),
        ("timm:inception_v3", "does not take images of 32x32 px"),
        ("vggl6", "did you mean vgg16"),
    ],
)
def test_bad_networks_are_refused_when_a_matrix_is_planned(arch: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_recipe(parse_arch(arch)[0], SMALL)


def test_patches_must_divide_images_that_are_not_square() -> None:
    with pytest.raises(ValueError, match=r"4x4 px do not divide images of 32x30 px.*1 or 2$"):
        check_timm("vit_tiny_patch16_224", (("patch_size", 4),), (3, 32, 30))


def test_a_missing_timm_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert is_network("timm:vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"type `pip install 'uebench\[timm\]'`"):
        parse_arch("timm:vit_tiny_patch16_224")


def test_widths_grow_as_the_sources_say() -> None:
    convolutions = [
        m.out_channels
        for m in build_network("vgg16", 10, SMALL, 0).modules()
        if isinstance(m, torch.nn.Conv2d)
    ]
    assert convolutions == [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    assert all(b >= a for a, b in pairwise(convolutions))
