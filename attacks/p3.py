"""P3: the images of a class get the universal adversarial perturbation towards the next class.

Source: Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial
Training", NeurIPS 2021, arXiv:2102.04716, whose third perturbation it is, and its authors' code.
The perturbation of class k is the one that makes a network, which was trained on clean images, take
images of any class for k. The labels stay.
Departs from it: the surrogate is the protocol's network, where the authors take VGG-16, and the
8-bit images are rounded, where theirs are truncated.
On the first 5,000 images of CIFAR-10 (resnet8, `quick`, bf16; single runs on 1,000 test images,
+- 3.1) standard training gives 53.0 on it and 48.0 without crop and flip, where clean images
give 64.7 and 66.4; the authors print 15.1 for VGG-16 after 150 epochs on all images. On all of
CIFAR-10 under `sprint` it gives 40.1 (clean images 83.6; one run).
Cost: 150 passes for the network, which `hypo` and `p4` share, and for 50,000 images of ten classes
26 for the perturbations.
"""

from __future__ import annotations

from uebench import attack

from ._universal import UniversalNoise


@attack("p3", title="P3", source="arXiv:2102.04716", family="error-maximizing")
class P3(UniversalNoise):
    """The universal perturbation towards the class after the image's own."""

    offset = 1
