"""Cutout, mixup and cutmix: where, how much, and with whom."""

import pytest
import torch

from uebench.augment import cutmix, cutout, mixup


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cutout_is_a_black_square_that_borders_cut():
    holes = (cutout(torch.ones(3000, 2, 32, 30), rng(), 16) == 0).float()
    assert torch.equal(holes[:, 0], holes[:, 1])
    areas = holes[:, 0].sum((1, 2))
    assert areas.max() == 256
    assert areas.min() == 8 * 8, "in a corner a quarter is left"
    rows, columns = holes[:, 0].amax(2).sum(1), holes[:, 0].amax(1).sum(1)
    assert torch.equal(areas, rows * columns), "every hole is a rectangle"
    # Every middle is as likely: a pixel well inside is hidden by 16 x 16 of 32 x 30 of them.
    assert holes[:, 0, 16, 15].mean() == pytest.approx(256 / 960, abs=0.03)
    assert holes[:, 0, 0, 0].mean() == pytest.approx(81 / 960, abs=0.03)


def test_mixup_is_the_weighted_mean():
    images = torch.rand(500, 3, 4, 4, generator=rng(1))
    mixed, partner, share = mixup(images, rng())
    own = share.view(-1, 1, 1, 1)
    expected = own * images + (1 - own) * images[partner]
    torch.testing.assert_close(mixed, expected)
    assert partner.sort().values.tolist() == list(range(500))
    assert len(share.unique()) > 490, "every image draws its own share"


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize(("beta", "spread"), [(0.2, 0.423), (1.0, 0.289), (5.0, 0.151)])
def test_shares_are_beta_distributed(mix, beta, spread):
    share = mix(torch.rand(4000, 1, 24, 24, generator=rng(1)), rng(), beta=beta).share
    if mix is mixup:  # the borders change cutmix's
        assert share.mean() == pytest.approx(0.5, abs=0.03)
        assert share.std() == pytest.approx(spread, abs=0.01)
    assert ((share >= 0) & (share <= 1)).all()


def test_cutmix_pastes_a_box_and_shares_are_its_area():
    images = torch.arange(1, 301.0).div(300).view(300, 1, 1, 1).expand(300, 1, 20, 24).contiguous()
    mixed, partner, share = cutmix(images, rng())
    pasted = mixed == images[partner]
    for i in range(300):
        if partner[i] == i:
            continue
        assert pasted[i].float().mean() == pytest.approx(1 - share[i].item(), abs=1e-6)
        assert torch.equal(mixed[i][~pasted[i]], images[i][~pasted[i]])
        rows, columns = pasted[i, 0].any(1).sum(), pasted[i, 0].any(0).sum()
        assert rows * columns == pasted[i].sum()
    assert share.mean() == pytest.approx(0.5 + 0.15, abs=0.08)  # the borders take some of the box


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_probability(mix):
    images = torch.rand(2000, 1, 8, 8, generator=rng(1))
    mixed, _, share = mix(images, rng(), probability=0.3)
    still = share == 1
    assert torch.equal(mixed[still], images[still])
    assert 0.66 < still.float().mean() < 0.78
    assert torch.equal(mix(images, rng(), probability=0.0).images, images)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda x: cutout(x, rng(), -1), "size must be 0 pixels or more, got -1"),
        (lambda x: mixup(x, rng(), beta=0.0), "beta must be above 0, got 0"),
        (lambda x: cutmix(x, rng(), probability=1.5), r"probability must lie in \[0, 1\], got 1.5"),
    ],
)
def test_bad_numbers(call, told):
    with pytest.raises(ValueError, match=told):
        call(torch.rand(2, 3, 4, 4))
