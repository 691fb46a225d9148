"""SEP, self-ensemble protection: adversarial examples against many checkpoints of one training.

Source: Chen et al., "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors", ICLR
2023, arXiv:2211.12005, and its authors' code.
30 steps along the sign of the summed gradients of `L(f_t(x + delta), y + K/2)` over 30 checkpoints
f_t, from zero and without augmentation. The paper's stronger forms are `sep_fa` and `sep_fa_vr`.
Departs from it: the checkpoints are those of equidistant epochs, where the authors save one
whenever the accuracy on the test set rises and take equidistant ones of that list. The budget is
8/255 as in its peers' tables; the paper's main one has 2/255 (`eps=2/255`). Images are rounded to 8
bits, where theirs are truncated.
Cost: 120 passes for the network and 900 for the noise.
"""

from __future__ import annotations

from uebench import attack

from ._ensemble import SelfEnsemble


@attack("sep", title="SEP", source="arXiv:2211.12005", family="error-maximizing")
class SEP(SelfEnsemble):
    """Adversarial examples of all checkpoints of one training, towards another class."""
