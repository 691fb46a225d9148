"""Networks by name: `resnet9[width=16]`, `resnet18`. Each takes images in [0, 1]."""

from __future__ import annotations

from .features import encoder_of, last_linear, penultimate
from .registry import (
    ARCHITECTURES,
    Architecture,
    build_network,
    is_network,
    network_recipe,
    parse_arch,
    seeded,
    shown_arch,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "build_network",
    "encoder_of",
    "is_network",
    "last_linear",
    "network_recipe",
    "parse_arch",
    "penultimate",
    "seeded",
    "shown_arch",
]
