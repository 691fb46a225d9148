"""The catalogue of data sets: one row per data set holds what the suite knows about it by name.

Lists, shell completion, protocols and the tables of papers read these rows, so that a new data set
needs one row here and, unless torchvision reads it, a loader in `sources.py`.
Changing `paper_epochs`, `flip` or `crop_padding` changes the protocol, and with it the keys of the
cells that were computed under it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What is known about a data set before any of its images is read.

    Attributes:
        title: what `uebench list datasets` prints.
        n_classes: number of classes; 0 where the data set itself says it.
        n_images: numbers of training and test images; 0 where the data set itself says it.
        shape: channels, height and width of an image; None where the data set itself says it.
        class_names: the classes' names by label; empty where they are numbers or not known here.
        paper_epochs: epochs that the papers train for on it, for the protocol `paper`.
        flip: whether an image may be flipped horizontally and keep its class.
        crop_padding: pixels of zero padding of the random crop; None: the protocol's.
        torchvision: its class in `torchvision.datasets`, if that reads it into memory.
    """

    title: str
    n_classes: int = 0
    n_images: tuple[int, int] = (0, 0)
    shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] = ()
    paper_epochs: int = 200
    flip: bool = True
    crop_padding: int | None = None
    torchvision: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class, in the order of the labels; numbers where no names are known."""
        return self.class_names or tuple(map(str, range(self.n_classes)))


_STL10 = "airplane bird car cat deer dog horse monkey ship truck"
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

DATASETS: dict[str, Known] = {
    "synthetic": Known("procedural shapes and textures, generated on the spot; no download"),
    "cifar10": Known(
        "60,000 images of 10 classes, 32x32 (torchvision)",
        n_classes=10,
        n_images=(50_000, 10_000),
        shape=(3, 32, 32),
        class_names=tuple(_CIFAR10.split()),
        torchvision="CIFAR10",
    ),
    "cifar100": Known(
        "60,000 images of 100 classes, 32x32 (torchvision)",
        n_classes=100,
        n_images=(50_000, 10_000),
        shape=(3, 32, 32),
        paper_epochs=300,
        torchvision="CIFAR100",
    ),
    "svhn": Known(
        "99,289 house-number digits, 32x32 (torchvision)",
        n_classes=10,
        n_images=(73_257, 26_032),
        shape=(3, 32, 32),
        paper_epochs=150,
        flip=False,  # digits are not symmetric; the paper's script flips them all the same
        torchvision="SVHN",
    ),
    "imagenet_subset": Known(
        "first 100 classes of the ImageNet folder in --data-dir, 224x224",
        n_classes=100,
        shape=(3, 224, 224),
        paper_epochs=300,
        crop_padding=0,  # its images are cropped at the centre when they are read
    ),
    "tiny_imagenet": Known(
        "110,000 images of 200 classes, 64x64, from tiny-imagenet-200/ in --data-dir",
        n_classes=200,
        n_images=(100_000, 10_000),
        shape=(3, 64, 64),
    ),
    "mini_imagenet": Known(
        "ImageNet's images of 100 classes, 84x84, from mini-imagenet/ in --data-dir",
        n_classes=100,
        shape=(3, 84, 84),
    ),
    "stl10": Known(
        "13,000 labelled images of 10 classes, 96x96 (torchvision)",
        n_classes=10,
        n_images=(5_000, 8_000),
        shape=(3, 96, 96),
        class_names=tuple(_STL10.split()),
        torchvision="STL10",
    ),
    "npz:PATH": Known("train_images uint8 [n,h,w,3], train_labels [n], test_images, test_labels"),
    "folder:PATH": Known("a tree train/CLASS/IMAGE and test/CLASS/IMAGE (or val/)"),
}
"""The data sets by the name that `--dataset` takes."""
