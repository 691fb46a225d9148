"""The embedded data set: deterministic, balanced, and told apart by shape and texture alone."""

import numpy as np
import pytest
import torch

from uebench.data.synthetic import SyntheticArrays, make_synthetic


@pytest.fixture(scope="module")
def default() -> SyntheticArrays:
    """Return the default data set."""
    return make_synthetic()


def _arrays(data: SyntheticArrays) -> list[np.ndarray]:
    """Return the four arrays, without the names."""
    return [data.train_images, data.train_labels, data.test_images, data.test_labels]


def _nearest_mean_accuracy(
    train: np.ndarray, y: np.ndarray, test: np.ndarray, t: np.ndarray
) -> float:
    """Return the accuracy of the Gaussian classifier with one shared covariance."""
    centres = np.stack([train[y == k].mean(0) for k in range(10)])
    whiten = np.linalg.inv(np.cov((train - centres[y]).T))
    gap = test[:, None] - centres[None]
    return float((np.einsum("nki,ij,nkj->nk", gap, whiten, gap).argmin(1) == t).mean())


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    """Every array depends on the seed and on nothing else."""
    one, same, other = (make_synthetic(60, 40, seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(_arrays(one), _arrays(same), _arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_splits_do_not_share_pictures_and_do_not_depend_on_each_other() -> None:
    """The test set is not a copy of the training set and ignores its size."""
    small, large = make_synthetic(50, 50), make_synthetic(150, 50)
    np.testing.assert_array_equal(small.test_images, large.test_images)
    np.testing.assert_array_equal(small.test_labels, large.test_labels)
    for data in (small, large):
        train = {image.tobytes() for image in data.train_images}
        assert len(train) == len(data.train_images)
        assert not train & {image.tobytes() for image in data.test_images}


@pytest.mark.parametrize("n_classes", [2, 10, 100])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_shapes_types_balance_and_names(n_classes: int, size: int) -> None:
    """Any number of classes and any size: balanced, shuffled, named."""
    data = make_synthetic(210, 105, n_classes, size)
    for images, labels, n in ((data[0], data[1], 210), (data[2], data[3], 105)):
        assert images.shape == (n, size, size, 3)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert labels.shape == (n,)
        counts = np.bincount(labels, minlength=n_classes)
        assert len(counts) == n_classes
        assert counts.max() - counts.min() <= 1
        assert (np.diff(labels) < 0).any()
        assert images.reshape(n, -1).std(1).min() > 2, "an empty picture"
    assert len(set(data.class_names)) == n_classes


def test_mean_colour_and_spread_do_not_tell_the_class(default: SyntheticArrays) -> None:
    """Each channel's mean and standard deviation leave a classifier near chance, 10 %."""
    train, test = ((x / 255.0).reshape(len(x), -1, 3) for x in (default[0], default[2]))
    mean = _nearest_mean_accuracy(train.mean(1), default[1], test.mean(1), default[3])
    assert mean < 0.16
    both = [np.concatenate([x.mean(1), x.std(1)], 1) for x in (train, test)]
    assert _nearest_mean_accuracy(both[0], default[1], both[1], default[3]) < 0.3


@pytest.mark.slow
def test_linear_probe_on_pixels_is_poor(default: SyntheticArrays) -> None:
    """Multinomial logistic regression on raw pixels does not solve the task."""
    x, y, t, z = (torch.from_numpy(a) for a in default[:4])
    x, t = ((a.flatten(1).float() / 255 - 0.5) for a in (x, t))
    weights = torch.zeros(x.shape[1] + 1, 10, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights[:-1] + weights[-1], y)
        loss.backward()
        optimizer.step()
    accuracy = ((t @ weights[:-1] + weights[-1]).argmax(1) == z).float().mean().item()
    assert accuracy < 0.35


def test_spectrum_falls_off_and_most_neighbours_are_alike(default: SyntheticArrays) -> None:
    """As in photographs: power falls about as 1/f^2, and sensor noise is a few levels."""
    gray = default.train_images[:500].astype(float).mean(3)
    gray -= gray.mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(gray)) ** 2).mean(0)
    f = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)[None, :]) * 32
    band = (f >= 1) & (f <= 14)
    slope = np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0]
    assert -4 < slope < -1.5
    step = np.abs(np.diff(gray, axis=2))
    assert 0.5 < np.median(step) < 6


def test_classes_share_neither_shape_nor_texture_up_to_ten(default: SyntheticArrays) -> None:
    """The first ten names have ten shapes and ten textures."""
    textures, shapes = zip(*(name.split() for name in default.class_names), strict=True)
    assert len(set(textures)) == len(set(shapes)) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 1}, "n_classes must be a whole number from 2 to 100, got 1"),
        ({"n_classes": 101}, "n_classes must be a whole number from 2 to 100, got 101"),
        ({"n_train": 9}, "n_train must be a whole number from 10 to 10000000, got 9"),
        ({"n_test": 0}, "n_test must be a whole number from 10 to 10000000, got 0"),
        ({"size": 7}, "size must be a whole number from 8 to 512, got 7"),
        ({"size": 32.5}, "size must be a whole number from 8 to 512, got 32.5"),
        ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, got -1"),
    ],
)
def test_bad_values_say_what_is_accepted(arguments: dict[str, int], message: str) -> None:
    """A wrong argument is named with its value and its range."""
    with pytest.raises(ValueError, match=message):
        make_synthetic(**arguments)
