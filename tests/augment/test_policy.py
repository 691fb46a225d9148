import pytest
import torch
from jaxtyping import config

import uebench.augment.policy as policy_module
from uebench.augment import Policy, trivial


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def _unchecked():
    """As users have it: without the tests' type checks, which would refuse the argument first."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


ALL = [
    *(Policy(kornia=k, draw=d) for k in ("0.6", "0.9") for d in ("image", "batch")),
    *(Policy(strength=s) for s in ("authors", "notebook", "2023")),
    *(Policy(letters) for letters in ("p", "c", "t", "p+c", "c+t", "a", "p+c+a")),
]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("policy", ALL, ids=str)
def test_shape_range_seed_and_input(policy):
    images = torch.rand(40, 3, 12, 12)
    kept = images.clone()
    first, again, other = (policy(images, rng(s)) for s in (1, 1, 2))
    assert torch.equal(images, kept)
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert ((first >= 0) & (first <= 1)).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 7, 5), (5, 3, 33, 31), (2, 3, 224, 224)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_image(shape, dtype):
    for seed in range(3):
        out = Policy(strength="notebook")(torch.rand(shape, dtype=dtype), rng(seed))
        assert out.shape == shape
        assert out.dtype == dtype
        assert ((out >= 0) & (out <= 1)).all()


def test_global_randomness_is_left_alone():
    images = torch.rand(8, 3, 8, 8)
    for policy in (Policy(), Policy(kornia="0.9", draw="batch", engine="kornia")):
        before = torch.get_rng_state()
        first = policy(images, rng(3))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(4)
        assert torch.equal(first, policy(images, rng(3)))
        assert not torch.equal(first, policy(images, rng(4)))


@pytest.mark.parametrize("letters", ["p", "c", "t", "p+c", "p+t", "c+t", "p+c+t", "p+c+a"])
def test_every_image_comes_back_at_its_place(letters):
    images = torch.rand(60, 3, 16, 16)
    out = Policy(letters)(images, rng())

    def shapes(batch):
        grey = batch.mean(1).flatten(1)
        return torch.nn.functional.normalize(grey - grey.mean(1, keepdim=True), dim=1)

    likest = (shapes(out) @ shapes(images).T).argmax(1)
    assert (likest == torch.arange(60)).float().mean() > 0.5


def test_gradients_reach_every_image_with_one_policy_and_stay_finite():
    images = torch.rand(256, 3, 8, 8, requires_grad=True)
    Policy()(images, rng()).sum().backward()
    assert images.grad.isfinite().all()
    # An image may be saturated as a whole, or shifted off, but hardly more than some.
    assert (images.grad.flatten(1) != 0).any(1).float().mean() > 0.9


def test_letters_choose_the_parts():
    images = torch.rand(64, 3, 8, 8)
    shuffled = Policy("c")(images, rng())
    assert torch.equal(shuffled.sort(1).values, images.sort(1).values)
    changed = (Policy("p")(images, rng()) != images).flatten(1).any(1).float().mean()
    assert 0.5 < changed < 0.95, "a quarter draws neither plasma operation"
    assert (Policy("p", strength="notebook")(images, rng()) != images).flatten(1).any(1).all()
    black_and_white = images.round()
    # Plasma contrast alone cannot leave [0, 1] at black and white with a map of at least 1/4, and
    # brightness alone changes half of the images.
    changed = Policy("p", strength="2023")(black_and_white, rng()) != black_and_white
    assert 0.3 < changed.flatten(1).any(1).float().mean() < 0.7


def test_letters_have_one_spelling():
    assert Policy("t+p+c") == Policy("p+c+t")
    assert Policy("t+p+c").letters == "p+c+t"
    assert len({Policy(), Policy("t+c+p")}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"letters": "p+x"}, r"letters must be p, c, and t or a.*got 'p\+x'; write"),
        ({"letters": ""}, "letters must be"),
        ({"letters": "p+t+a"}, "a stands in t's place, got 'p\\+t\\+a'; leave one"),
        ({"letters": "a", "draw": "batch", "engine": "kornia"}, "no AutoAugment for CIFAR-10"),
        ({"letters": "p+p"}, "each at most once"),
        ({"strength": "strong"}, "strength must be one of paper, authors, notebook, 2023, got 'st"),
        ({"kornia": "0.7"}, "kornia must be one of 0.6, 0.9, got '0.7'; choose one"),
        ({"draw": "pixel"}, "draw must be one of image, batch"),
        ({"engine": "albumentations"}, "engine must be one of native, kornia"),
        ({"engine": "kornia"}, "engine='kornia' cannot draw an operation for every image"),
    ],
)
@pytest.mark.usefixtures("_unchecked")
def test_bad_options_are_refused_with_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        Policy(**options)


@pytest.mark.usefixtures("_unchecked")
def test_bad_images_are_refused():
    with pytest.raises(ValueError, match=r"got torch.uint8 \[2, 3, 4, 4\]; divide"):
        Policy()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), rng())
    with pytest.raises(ValueError, match="floating-point"):
        Policy()(torch.rand(3, 4, 4), rng())


def test_engine_kornia_runs_the_installed_library_only():
    with pytest.raises(ValueError, match="needs another kornia than the installed"):
        Policy(kornia="0.6", draw="batch", engine="kornia")(torch.rand(2, 3, 8, 8), rng())


@pytest.mark.parametrize("strength", ["paper", "notebook", "2023"])
def test_both_engines_have_one_distribution(strength):
    """Mean, spread and size of the change, over the plasma and shuffle of many images."""
    images = torch.rand(2000, 3, 16, 16, generator=rng(9)) * 0.6 + 0.2
    sizes = []
    for engine in ("native", "kornia"):
        policy = Policy("p+c", strength, kornia="0.9", draw="batch", engine=engine)
        out = policy(images, rng(5))
        change = (out - images).abs().mean((1, 2, 3))
        still = (change == 0).float().mean()
        sizes.append([x.item() for x in (out.mean(), out.std(), change.mean(), still)])
    assert sizes[0] == pytest.approx(sizes[1], abs=0.04)


def test_sorted_images_get_the_strength_of_their_own_operation(monkeypatch):
    seen = []

    def record(images, operation, strength, kornia):
        seen.append((operation, strength))
        return trivial.apply_sorted(images, operation, strength, kornia)

    monkeypatch.setattr(policy_module, "apply_sorted", record)
    Policy("c+t", kornia="0.9")(torch.rand(500, 3, 4, 4), rng())
    operation, strength = seen[0]
    assert (operation.diff() >= 0).all()
    # Contrast, brightness and sharpness lie in (0.1, 1.9); a rotation's strength rarely does.
    factors = strength[(operation >= 4) & (operation <= 6)]
    assert len(factors) > 90
    assert ((factors >= 0.1) & (factors <= 1.9)).all()
    assert strength[operation == 7].abs().max() > 20


@pytest.mark.parametrize("letters", ["p", "c", "p+c+t", "p+c+a"])
def test_the_result_is_an_ordinary_tensor(letters):
    """What is computed without autograd may still be fed to a network that learns."""
    out = Policy(letters)(torch.rand(8, 3, 8, 8), rng())
    assert not out.is_inference()
    weight = torch.ones(8, 3, 8, 8, requires_grad=True)
    (out * weight).sum().backward()
    assert torch.equal(weight.grad, out)
