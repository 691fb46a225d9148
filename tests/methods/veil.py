"""A method that tests write in many ways, `veil`, and how they type and forget it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from uebench.cells.cell import source_of
from uebench.methods.registry import build_attack

METHOD = '''
import torch
from uebench import Attack, attack
{above}

@attack("veil", title="Veil", source="a test")
class Veil({base}):
    """The same change of every pixel."""

    {inside}

    def perturb(self, data, run):
        """Return it."""
        return torch.full(tuple(data.images.shape), self.eps * ({value}), device=run.device)
'''

QUICK: dict[str, Any] = {"arch": "resnet9[width=2]", "protocol_options": {"epochs": 1}}


def method(value: str = "1.0", above: str = "", inside: str = "", base: str = "Attack") -> str:
    return METHOD.format(value=value, above=above, inside=inside, base=base)


def forget_modules(folder: Path) -> None:
    """Forget the modules in a folder, as a new process would."""
    for name, module in list(sys.modules.items()):
        place = vars(module).get("__file__") or repr(vars(module).get("__path__"))
        if str(folder) in place:
            del sys.modules[name]


def typed(text: str, **space: Any) -> str:
    """Type a method into this session, and return what its key contains of its code."""
    exec(compile(text, "<cell>", "exec"), {"__name__": "__main__", **space})
    return source_of(build_attack("veil").method)["source"]
