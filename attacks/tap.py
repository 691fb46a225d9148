"""TAP, targeted adversarial poisoning: each image is made an adversarial example of the next class.

Source: Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021, arXiv:2106.10807, and
its authors' code.
`min_delta L(f(T(x + delta)), y + 1)` for a clean network f, where T is a random shift by fractions
of pixels and a flip; the labels stay. `objective=untargeted` is the paper's other form, which the
authors call brittle. ADVIN (arXiv:2111.10130) is like `reference=at,eps=32/255`.
Departs from it: the network's images are not standardised by channel, its weights begin as the
suite's networks do (theirs as Kaiming's, by fan-out), and the loss that chooses a restart is
measured after the last step, not in it. Ours for images from 96 px on: the network is the
protocol's and trained like the others, and there are eight restarts, where the authors take a
pretrained network and search once.
Cost: 40 passes for the network and 250 for each restart, so 2,040 with the eight of the authors.
`restarts=1` is seven times cheaper and gives another, weaker poison.
"""

from __future__ import annotations

from uebench import attack

from ._adversarial import AdversarialNoise


@attack("tap", title="TAP", source="arXiv:2106.10807", family="error-maximizing")
class TAP(AdversarialNoise):
    """Adversarial examples of a clean network, towards the next class, under shifts and flips."""
