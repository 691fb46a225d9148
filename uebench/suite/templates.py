"""What `uebench new` writes: files by name, with $-words that `scaffold.py` fills in."""

from __future__ import annotations

ATTACK = '''"""$title: every image of a class gets the same random pattern of coloured blocks.

Source: Huang et al., arXiv:2101.04898, the class-wise random baseline; name yours here.
Departs from it: blocks instead of single pixels, and signs, so that each uses the whole budget.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Attack, Run, Split, attack


@attack("$name", title="$title", source="arXiv:2101.04898, random baseline")
class $class_name(Attack):
    """One random pattern of coloured blocks per class, scaled to the budget `eps`."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    block: Annotated[int, Field(ge=1, le=64)] = 4
    """Side of a block, in pixels."""

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return `eps` times the pattern of each image's class."""
        c, h, w = data.shape
        grid = (data.n_classes, c, -(-h // self.block), -(-w // self.block))
        coins = torch.randint(0, 2, grid, generator=run.rng, device=run.device)
        blocks = coins.repeat_interleave(self.block, 2).repeat_interleave(self.block, 3)
        return self.eps * (2 * blocks - 1)[data.labels, :, :h, :w]
'''

DEFENSE = '''"""$title: Gaussian noise is added to every training image, anew in each epoch.

Source: Cohen et al., arXiv:1902.02918, the augmentation of randomized smoothing; name yours here.
Departs from it: the images are clipped to [0, 1].
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import Defense, Run, defense


@defense("$name", title="$title", source="arXiv:1902.02918")
class $class_name(Defense):
    """Cross-entropy on noisy images; test images stay as they are."""

    sigma: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Standard deviation of the noise, in the pixel range [0, 1]."""

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the noisy images."""
        noise = torch.randn(images.shape, generator=run.rng, device=images.device)
        return F.cross_entropy(model((images + self.sigma * noise).clamp(0, 1)).float(), labels)
'''

ATTACK_TEST = '''"""What every attack must do, and what this one claims."""

import pytest

import uebench
from uebench.testing import attack_conformance


@attack_conformance("$name")
def test_it_conforms(check):
    """Hold it to the budget, to its seed, and to any size and number of classes."""
    check()


def test_a_class_shares_its_pattern(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Test the claim: no pixel is raised in one image of a class and lowered in another."""
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path))  # not the store of your experiments
    dataset = uebench.load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    poison = uebench.craft("$name", dataset, device="cpu")
    signs = (poison.images.int() - dataset.train.images.int()).sign()
    for label in range(dataset.n_classes):
        mine = signs[poison.labels == label]
        assert mine.any()
        assert (mine.amax(0) * mine.amin(0) >= 0).all()
'''

DEFENSE_TEST = '''"""What every defense must do, and what this one claims."""

import pytest

import uebench
from uebench.testing import defense_conformance


@defense_conformance("$name")
def test_it_conforms(check):
    """Hold it to finite losses with gradients, to its seed, and to any size of images."""
    check()


def test_the_noise_is_what_the_defense_adds(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Test the claim: without noise it is standard training, and with noise it is not."""
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path))  # not the store of your experiments
    dataset = uebench.load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    clean = uebench.craft("none", dataset, device="cpu")
    options = {"arch": "resnet9[width=2]", "epochs": 2, "device": "cpu"}
    curves = {
        spec: [row["loss"] for row in uebench.train(clean, spec, dataset, **options)["curve"]]
        for spec in ("standard", "$name[sigma=0]", "$name[sigma=0.5]")
    }
    standard, without, noisy = (curve[0] for curve in curves.values())
    assert standard == without, "with every option off it must be standard training"
    assert standard != noisy
'''

PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$project"
version = "0.1.0"
description = "$title, KIND_ARTICLE KIND for uebench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["uebench"]

[project.optional-dependencies]
dev = ["pytest"]

[project.entry-points."uebench.KINDs"]
$name = "$module"

[tool.setuptools]
py-modules = ["$module"]
"""

README = """# $title

$title is KIND_ARTICLE KIND for uebench (arXiv:2303.15127). All of it is in `$module.py`.

```sh
pip install -e '.[dev]'  # uebench finds it by the entry point in pyproject.toml
python -m pytest  # what every KIND must do, and what this one claims
uebench check $name  # the same, with time and memory, and how to mend what fails
uebench run RUN_FLAGS
```
"""


def _for_kind(text: str, kind: str, flags: str) -> str:
    """Return a file that attacks and defenses share, with the words of one of them."""
    article = "an" if kind == "attack" else "a"
    return text.replace("KIND_ARTICLE", article).replace("KIND", kind).replace("RUN_FLAGS", flags)


def _files(kind: str, method: str, test: str, flags: str) -> dict[str, str]:
    """Return the files of a package by name."""
    return {
        "$module.py": method,
        "test_$name.py": test,
        "pyproject.toml": _for_kind(PROJECT, kind, flags),
        "README.md": _for_kind(README, kind, flags),
    }


FILES = {
    "attack": _files("attack", ATTACK, ATTACK_TEST, "--attacks none,$name --defenses standard"),
    "defense": _files(
        "defense", DEFENSE, DEFENSE_TEST, "--attacks none,lsp --defenses standard,$name"
    ),
}
"""The files of a package by kind."""
