"""Batched augmentations on the images' device, with separate draws for every image.

All take and return images [b, c, h, w] (floats in [0, 1]; `crop_flip` takes any type), draw from
the `torch.Generator` that they are given, which lives on the images' device, and pass gradients;
those that quantise (posterize, equalize, solarize, fewer_bits, jpeg) pass them straight through.
"""

from .affine import rotate, shear_x, shear_y, translate_x, translate_y, warp
from .autoaugment import auto_augment, rand_augment, trivial_augment_wide
from .color import (
    auto_contrast,
    brightness,
    channel_shuffle,
    contrast,
    equalize,
    posterize,
    sharpness,
    solarize,
)
from .contrastive import contrastive
from .diamond_square import plasma_maps
from .geometry import crop_flip, shift_flip
from .mix import Mixture, cutmix, cutout, mixup
from .plasma import plasma_brightness, plasma_contrast
from .policy import STRENGTHS, Policy
from .squeeze import fewer_bits, gaussian_blur, grayscale, jpeg
from .trivial import OPERATIONS, trivial_augment

__all__ = [
    "OPERATIONS",
    "STRENGTHS",
    "Mixture",
    "Policy",
    "auto_augment",
    "auto_contrast",
    "brightness",
    "channel_shuffle",
    "contrast",
    "contrastive",
    "crop_flip",
    "cutmix",
    "cutout",
    "equalize",
    "fewer_bits",
    "gaussian_blur",
    "grayscale",
    "jpeg",
    "mixup",
    "plasma_brightness",
    "plasma_contrast",
    "plasma_maps",
    "posterize",
    "rand_augment",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "shift_flip",
    "solarize",
    "translate_x",
    "translate_y",
    "trivial_augment",
    "trivial_augment_wide",
    "warp",
]
