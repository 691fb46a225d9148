"""P4: the images of a class get the universal perturbation towards that class.

Source: Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial
Training", NeurIPS 2021, arXiv:2102.04716, whose fourth perturbation it is, and its authors' code.
It is P3 with the image's own class in place of the next one. HYPO has the same aim, with one
perturbation for each image instead of one for each class.
Departs from it: the surrogate is the protocol's network, where the authors take VGG-16, and the
8-bit images are rounded, where theirs are truncated.
On the first 5,000 images of CIFAR-10 (resnet8, `quick`, bf16; single runs on 1,000 test images,
+- 3.1) standard training gives 51.6 on it and 45.5 without crop and flip, where clean images
give 64.7 and 66.4; the authors print 23.7 for VGG-16 after 150 epochs on all images. On all of
CIFAR-10 under `sprint` it gives 42.4 (clean images 83.6; one run).
Cost: 150 passes for the network, which `hypo` and `p3` share, and for 50,000 images of ten classes
26 for the perturbations.
"""

from __future__ import annotations

from uebench import attack

from ._universal import UniversalNoise


@attack("p4", title="P4", source="arXiv:2102.04716", family="error-minimizing")
class P4(UniversalNoise):
    """The universal perturbation towards the image's own class."""

    offset = 0
