"""Published rows name methods and options as they are typed here, so that they meet our cells."""

from typing import Any

import pytest

from uebench.methods.registry import build_attack, build_defense, methods
from uebench.report.published import Published, read_published

ROWS = read_published(secondhand=True)
OF_NO_METHOD = {"ratio", "radius=unknown", "augment=none", "augment=crop+flip"}
"""What a row may say that no option does: the poisoned share, and what its source leaves open or
changed of the protocol. Such rows meet no cell."""


@pytest.mark.parametrize(("kind", "build"), [("attack", build_attack), ("defense", build_defense)])
def test_options_of_published_rows_are_accepted(kind: Any, build: Any) -> None:
    typed = {(getattr(row, kind), getattr(row, f"{kind}_options")) for row in ROWS}
    checked = 0
    for name, options in typed:
        parts = [part for part in options.split(",") if part]
        ours = [p for p in parts if not {p, p.partition("=")[0]} & OF_NO_METHOD]
        if name in methods(kind):
            build(f"{name}[{','.join(ours)}]" if ours else name)
            checked += 1
    assert checked > 15


def rows_of(defense: str, options: str) -> list[Published]:
    return [row for row in ROWS if (row.defense, row.defense_options) == (defense, options)]


@pytest.mark.parametrize(
    ("defense", "options", "source"),
    [
        ("coin", "", "coin-2023 [S]"),
        ("rsk_ff", "", "rsk-2024"),
        ("op", "strong=true,cutmix=true", "op-2023"),
        ("dvae", "", "bridgepure-2024"),
        ("at", "radius=8/255,steps=10,augment=cutout", "ops-2023"),
        ("blur", "sigma=0.1", "apbench-2023"),
    ],
)
def test_the_column_that_a_defense_corresponds_to(defense: str, options: str, source: str) -> None:
    assert source in {row.source for row in rows_of(defense, options)}


def test_a_blur_that_changes_nothing_is_not_compared_with_ours() -> None:
    """The 3x3 kernel of sigma 0.1 is the identity."""
    assert not rows_of("blur", "")
