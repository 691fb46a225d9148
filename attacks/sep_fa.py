"""SEP-FA, self-ensemble protection with feature alignment.

Source: Chen et al., "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors", ICLR
2023, arXiv:2211.12005, and its authors' code.
As `sep`, but in each checkpoint the noise lowers the mean squared distance between an image's
penultimate features and the mean features of its target class under that checkpoint.
Departs from it: as `sep` does.
Cost: 120 passes for the network, 900 for the noise, and 30 forward passes for the means.
"""

from __future__ import annotations

from uebench import attack

from ._ensemble import FeatureEnsemble


@attack("sep_fa", title="SEP-FA", source="arXiv:2211.12005", family="error-maximizing")
class SEPFA(FeatureEnsemble):
    """Noise that aligns features with those of another class, in all checkpoints of a training."""
