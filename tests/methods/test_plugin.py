"""A stranger's installed package: one file, one entry point, no edit here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from uebench.report import read_cells

ATTACK = '''
"""Class-wise noise: every image of a class gets the same random sign pattern.

Source: Huang et al., arXiv:2101.04898, random baseline.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Attack, Fraction255, Run, Split, attack


@attack("classwise_noise", title="Class-wise noise", source="arXiv:2101.04898")
class ClasswiseNoise(Attack):
    """One random sign pattern per class, scaled to the budget."""

    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel, in the pixel range [0, 1]."""

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return `eps` times the sign pattern of each image's class."""
        shape = (data.n_classes, *data.shape)
        coin = torch.randint(0, 2, shape, generator=run.rng, device=run.device)
        return self.eps * (2 * coin - 1)[data.labels]
'''


def installed(tmp_path: Path) -> dict[str, str]:
    """Lay out two packages as pip would, one good and one broken; return the environment."""
    site = tmp_path / "site"
    for name, text in (("stranger", ATTACK), ("broken_one", "raise RuntimeError('not today')")):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[uebench.attacks]\n{name} = {name}\n")
    return {**os.environ, "PYTHONPATH": str(site)}


COMMANDS = """
import json, sys
from click.testing import CliRunner
import uebench.attacks.em  # before the registry, which must still call it built-in
from uebench.cli import main

for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, arguments)
    print(json.dumps([result.exit_code, result.stdout, result.stderr]))
"""


@pytest.mark.slow
def test_an_installed_attack_is_listed_runs_and_is_in_the_table(tmp_path: Path) -> None:
    assert len(ATTACK.strip().splitlines()) < 40
    made = "--attacks classwise_noise[eps=16/255] --defenses standard --epochs 1 --out made"
    data = "--dataset synthetic[n_train=40,n_test=20,n_classes=2,size=16] --device cpu"
    commands = [
        ["list", "attacks", "--json"],
        ["list", "defenses", "--json"],
        ["run", *made.split(), *data.split(), "--arch", "resnet9[width=2]"],
        ["run", "--attacks", "broken_one"],
    ]
    # one interpreter for all four, since each would load torch again
    session = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env=installed(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert session.returncode == 0, session.stderr
    listed, defenses, run, unknown = (json.loads(line) for line in session.stdout.splitlines())

    rows = {row["name"]: row for row in json.loads(listed[1])}
    assert rows["classwise_noise"]["origin"] == "entry point stranger"
    assert rows["(broken)"]["source"].startswith("RuntimeError: not today (broken_one.py, line 1")
    assert "em" in rows, "a broken plug-in harms only itself"
    assert rows["em"]["origin"] == "built-in"
    assert {row["name"]: row["origin"] for row in json.loads(defenses[1])}["at"] == "built-in"
    assert run[0] == 0, run[2]
    assert "Class-wise noise" in run[1]
    (cell,) = read_cells(tmp_path / "made").to_dict("records")
    assert (cell["attack"], cell["attack_options"]) == ("classwise_noise", "eps=16/255")
    assert unknown[0] == 1
    assert "not today" in unknown[2]
