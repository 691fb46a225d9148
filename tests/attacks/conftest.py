"""Data on which small networks learn in seconds what attacks need them to know."""

import numpy as np
import pytest

from uebench.data import Dataset, from_arrays


def striped(n: int, seed: int = 0, side: int = 16, level: float = 10.0) -> Dataset:
    """Return `n` training images of 3 classes: level stripes of another width, under noise.

    Shifts, flips, and changes of colour leave the class as it is.
    """
    rng = np.random.default_rng(seed)

    def draw(labels: np.ndarray) -> np.ndarray:
        cycles = np.array([1.0, 2.7, 6.0])[labels][:, None, None, None]
        phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, 1, 1))
        rows = np.arange(side)[None, :, None, None] / side
        colour = rng.uniform(0.6, 1.0, (len(labels), 1, 1, 3))
        stripes = level * colour * np.sin(2 * np.pi * cycles * rows + phase)
        noise = rng.normal(0, level / 2, (len(labels), side, side, 3))
        base = rng.uniform(115, 140, (len(labels), 1, 1, 3))
        return np.clip(base + stripes + noise, 0, 255).round().astype(np.uint8)

    labels, test = rng.permutation(np.arange(n) % 3), np.arange(60) % 3
    return from_arrays("stripes", (draw(labels), labels), (draw(test), test), None)


@pytest.fixture(scope="session")
def stripes() -> Dataset:
    """300 training and 60 test images of 3 classes, 16x16."""
    return striped(300)
