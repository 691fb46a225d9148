"""How an epoch is split into batches."""

import itertools

import pytest
import torch

from uebench.learn.loops import n_batches, shuffled_batches


@pytest.mark.parametrize("batch_size", [2, 3, 4, 7, 100])
def test_batches_are_almost_equal_and_never_a_single_image(batch_size: int) -> None:
    for n in range(2, 60):
        batches = shuffled_batches(n, batch_size, torch.Generator().manual_seed(n))
        assert sorted(itertools.chain(*(batch.tolist() for batch in batches))) == list(range(n))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 1, (n, sizes)


def test_the_number_of_batches_is_rounded() -> None:
    assert [n_batches(n, 128) for n in (1, 100, 5000, 50_000)] == [1, 1, 39, 391]
