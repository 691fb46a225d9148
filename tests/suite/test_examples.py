"""The examples: the same image in all its rows, the same draw in a column, every part visible."""

import torch

from uebench.data import Dataset
from uebench.suite.examples import N_WHOLE_DRAWS, augmentations, augmented


def test_every_part_changes_the_picture_and_the_draw_belongs_to_the_column(small: Dataset) -> None:
    image, other = small.train.images[:2]
    shown = []
    for column, (name, augment) in enumerate(augmentations()):
        once = augmented(image, column, augment)
        assert once.shape == (32, 32, 3)
        assert 0 <= once.min() <= once.max() <= 1
        assert (once == augmented(image, column, augment)).all(), "no draw of its own"
        clean = image.permute(1, 2, 0).numpy() / 255
        changed = abs(once - clean).max() > 0.02
        assert changed == (name != "as it is"), name
        assert augmented(other, column, augment).shape == (32, 32, 3)
        shown.append(torch.from_numpy(once.copy()))
    assert len(shown) == 5 + N_WHOLE_DRAWS
    assert len({tuple(x.flatten().tolist()) for x in shown}) == len(shown)
