"""The data card of a poison, in Markdown: what it is, its measurements and how to load it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ..common.json_file import read_object
from ..data.foreign import Reading, read_poison
from ..data.poison import PoisonError
from ..data.poison_files import audit_poison
from .manifest import sha256_of

_LOADING = {
    ".npz": """import numpy as np

with np.load({name!r}) as poison:
    images = poison["images"]  # uint8 [n, h, w, 3]
    labels = poison["labels"]  # int64 [n]
    index = poison["index"]  # position of each image in the clean training set""",
    ".safetensors": """from safetensors.numpy import load_file

poison = load_file({name!r})
images = poison["images"]  # uint8 [n, h, w, 3]
labels = poison["labels"]  # int64 [n]
index = poison["index"]  # position of each image in the clean training set""",
    "": """from pathlib import Path

import numpy as np
from PIL import Image

folder = Path({name!r})
images = {{int(path.stem): np.array(Image.open(path)) for path in folder.glob("*.png")}}
# keys are positions in the clean training set; labels.csv in the same folder has the labels""",
}
"""Code that loads a poison, by the suffix of its file; a folder has none."""
_INTENDED_USE = (
    "Research on availability attacks: measuring what a training procedure learns from images that "
    "were perturbed to teach it nothing. Do not train models for real use on it, and do not take "
    "it as proof that images are protected: published defenses recover most of the accuracy."
)


def card(path: Path, licence: str, dataset: Any = None, spec: str | None = None) -> str:
    """Return the card of a poison that `uebench craft` wrote.

    With the clean data set the budget is measured again; without it, the card gives the recorded
    budget and says so. `spec` is what the user calls the data set; by default it is what the
    poison was crafted with, of whose path only the last part was recorded.

    Raises:
        PoisonError: the poison has no record, cannot be read, or differs from its record.
    """
    meta = _meta(path)
    if dataset is not None:
        poison, _ = read_poison(path, dataset, Reading())
        audit = audit_poison(poison, dataset)
        if audit["as_recorded"] is False:
            raise PoisonError(
                f"{path} is not the poison that its record describes; craft or download it again"
            )
        meta |= audit
    return "\n".join(
        [
            f"# {path.stem}: a poisoned training set",
            "",
            *_facts(path, meta, measured=dataset is not None),
            "",
            "## Intended use",
            "",
            _INTENDED_USE,
            "",
            *_loading(path, meta, spec or str(meta.get("dataset_spec", meta.get("dataset", "D")))),
            "",
            "## Recipe",
            "",
            "```json",
            json.dumps(meta.get("recipe", {}), indent=1),
            "```",
            "",
            "## Licence",
            "",
            licence,
            "",
        ]
    )


def _facts(path: Path, meta: dict[str, Any], measured: bool) -> list[str]:
    recipe = meta.get("recipe", {})
    spec = meta.get("spec") or recipe.get("attack") or path.stem
    source = "measured on the 8-bit images" if measured else "as recorded by its maker"
    facts = [
        ("attack", f"`{spec}`"),
        ("clean data set", f"{meta.get('dataset', 'unknown')}"),
        ("data set fingerprint", f"`{meta.get('fingerprint', 'unknown')}`"),
        ("poison seed", recipe.get("seed", meta.get("seed", "unknown"))),
        ("images", meta.get("images", "see the file")),
        *_parts(meta),
        ("budget", _budget(meta.get("budget", {}))),
        (f"largest change, {source}", _largest(meta)),
        ("PSNR, SSIM (means)", f"{_number(meta, 'psnr_mean')} dB, {_number(meta, 'ssim_mean')}"),
        ("sha256 of images, labels and index", f"`{meta.get('sha256', 'unknown')}`"),
    ]
    if path.is_file():
        facts.append(("sha256 of the file", f"`{sha256_of(path)}`"))
    return ["| | |", "| --- | --- |", *(f"| {name} | {_cell(value)} |" for name, value in facts)]


def _parts(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a line for each attack of a mixture: its images and its own budget."""
    lines = []
    for part in meta.get("parts") or ():
        match part:
            case {"attack": str(spec), "images": int(n), "budget": budget}:
                lines.append(("part of the mixture", f"{n} images: `{spec}`, {_budget(budget)}"))
    return lines


def _loading(path: Path, meta: dict[str, Any], spec: str) -> list[str]:
    """Return how to load the file in Python, and the commands that use it as an attack."""
    data, name = shlex.quote(spec), _name(path.stem)
    ending = path.suffix if path.suffix in _LOADING else ""
    return [
        "## How to load it",
        "",
        "```python",
        _LOADING[ending].format(name=path.name),
        "```",
        "",
        "As an attack, in the folder of the file:",
        "",
        "```sh",
        f"uebench import {shlex.quote(path.name)} --dataset {data} --name {name}",
        f"uebench run --dataset {data} --attacks none,imported:{name} --defenses standard",
        "```",
    ]


def _meta(path: Path) -> dict[str, Any]:
    """Return the record that was written with a poison."""
    if not path.exists():
        raise PoisonError(f"{path}: no such file; give what `uebench craft --out` wrote")
    record = path / "meta.json" if path.is_dir() else path.with_name(f"{path.name}.meta.json")
    try:
        return read_object(record)
    except ValueError:
        raise PoisonError(
            f"{path} has no record {record.name} that can be read; cards are for poisons that "
            "`uebench craft --out` wrote; `uebench audit` measures any other"
        ) from None


def _budget(budget: Any) -> str:
    match budget:
        case {"norm": "linf", "eps": float(eps)}:
            return f"linf {255 * eps:g}/255"
        case {"norm": "l0", "eps": float() | int() as pixels}:
            return f"l0 {pixels:g}, changed pixels per image"
        case {"norm": "none"}:
            return "none, changes have no bound"
        case {"norm": norm, "eps": float(eps)}:
            return f"{norm} {eps:.4g}, in the pixel range [0, 1]"
    return "unknown"


def _largest(meta: dict[str, Any]) -> str:
    pixels = f"l0 {_number(meta, 'l0_max')} pixels"
    return f"linf {_number(meta, 'linf_max')}/255, l2 {_number(meta, 'l2_max')}, {pixels}"


def _number(meta: dict[str, Any], name: str) -> str:
    value = meta.get(name)
    return f"{value:.4g}" if isinstance(value, (int, float)) else "unknown"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _name(stem: str) -> str:
    """Return a valid name for `uebench import` that resembles a file's."""
    plain = (letter if letter.isascii() and letter.isalnum() else "_" for letter in stem)
    name = "".join(plain).lower()
    return (name if name[:1].isalpha() else f"poison_{name}")[:64]
