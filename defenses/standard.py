"""Standard training: no defense. The trainer's crop and flip are all the augmentation there is."""

from __future__ import annotations

from uebench import Defense, defense


@defense("standard", title="Standard", source="no defense", family="")
class Standard(Defense):
    """Cross-entropy on cropped and flipped images."""
