"""A key holds the code of a method that was typed into a session, with all that it reaches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uebench
from tests.methods.veil import QUICK, method, typed
from uebench.cells.cell import source_of
from uebench.methods.registry import build_attack
from uebench.store.store import Store

pytestmark = pytest.mark.usefixtures("clean_methods")


SESSION_EDITS = {
    "the method itself": (lambda n: method(f"{n}.0")),
    "a constant": (lambda n: method("SCALE", f"SCALE = {n}.0")),
    "a constant in a dictionary": (lambda n: method("C['s'][0]", f"C = {{'s': [{n}.0]}}")),
    "a tensor": (lambda n: method("SCALE.item()", f"SCALE = torch.tensor({n}.0)")),
    "an array": (lambda n: method("P[0]", f"import numpy\nP = numpy.full(3, {n}.0)")),
    "a function": (lambda n: method("scale()", f"def scale():\n    return {n}.0")),
    "a function that a function calls": (
        lambda n: method("b()", f"def a():\n    return {n}.0\ndef b():\n    return a()")
    ),
    "a function inside a function": (
        lambda n: method("b()", f"def b():\n    return (lambda: {n}.0)()")
    ),
    "a default": (lambda n: method("scale()", f"def scale(by={n}.0):\n    return by")),
    "a keyword's default": (lambda n: method("scale()", f"def scale(*, by={n}.0):\n    return by")),
    "a lambda over a variable": (
        lambda n: method("s()", f"def make(by):\n    return lambda: by\ns = make({n}.0)")
    ),
    "a partial function": (
        lambda n: method("s()", f"import functools\ns = functools.partial(float, {n})")
    ),
    "a cached function": (
        lambda n: method("s()", f"import functools\n@functools.cache\ndef s():\n    return {n}.0")
    ),
    "a decorated function": (
        lambda n: method("s()", f"@torch.no_grad()\ndef s():\n    return {n}.0")
    ),
    "an attribute of the class": (
        lambda n: method("self.by", "from typing import ClassVar", f"by: ClassVar[float] = {n}.0")
    ),
    "a private attribute": (lambda n: method("self._by", inside=f"_by: float = {n}.0")),
    "another method of the class": (
        lambda n: method("self.by()", inside=f"def by(self):\n        return {n}.0")
    ),
    "a property": (
        lambda n: method("self.by", inside=f"@property\n    def by(self):\n        return {n}.0")
    ),
    "a static method": (
        lambda n: method("self.by()", inside=f"@staticmethod\n    def by():\n        return {n}.0")
    ),
    "a base class": (
        lambda n: method(
            "self.by()",
            f"class Base(Attack):\n    def by(self):\n        return {n}.0",
            base="Base",
        )
    ),
    "an object of a class": (
        lambda n: method(
            "s.by", f"class S:\n    def __init__(self):\n        self.by = {n}.0\ns = S()"
        )
    ),
    "the class of an object": (
        lambda n: method("s.by()", f"class S:\n    def by(self):\n        return {n}.0\ns = S()")
    ),
    "a global that is found by its name": (
        lambda n: method("globals()['SCALE']", f"SCALE = {n}.0")
    ),
    "a module": (
        lambda n: method("m.by", f"import types\nm = types.ModuleType('m')\nm.by = {n}.0")
    ),
    "a random state": (lambda n: method("r.random()", f"import random\nr = random.Random({n})")),
    "a network": (
        lambda n: method(
            "net.weight.item()",
            f"net = torch.nn.Linear(1, 1)\n"
            f"with torch.no_grad():\n    net.weight.fill_({n})\n    net.bias.zero_()",
        )
    ),
    "a validator of an option": (
        lambda n: method(
            "self.eps",
            "from pydantic import field_validator",
            f"@field_validator('eps')\n    @classmethod\n    def check(cls, v):\n"
            f"        return v * {n}",
        )
    ),
}


@pytest.mark.parametrize("edit", SESSION_EDITS)
def test_an_edit_in_a_session_gives_another_key(edit: str) -> None:
    make = SESSION_EDITS[edit]
    assert typed(make(0)) != typed(make(1))
    assert typed(make(1)) == typed(make(1)), "the same code has the same key"


def test_a_namespace_without_a_name_is_a_session_too() -> None:
    sources = []
    for value in ("1.0", "-1.0"):
        exec(compile(method(value), "<cell>", "exec"), {})
        sources.append(source_of(build_attack("veil").method)["source"])
    assert sources[0] != sources[1]


def test_a_change_of_a_class_or_a_global_in_place_gives_another_key() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(method("SCALE * self.by()", "SCALE = 1.0", "def by(self):\n        return 1.0"), space)
    veil = build_attack("veil").method
    sources = [source_of(veil)]
    space["SCALE"] = 2.0
    sources.append(source_of(veil))
    space["Veil"].by = lambda self: 3.0
    sources.append(source_of(veil))
    assert len({source["source"] for source in sources}) == 3


def test_a_file_that_a_session_names_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = method("numpy.load('pattern.npy')[0]", "import numpy")
    sources = []
    for value in (1.0, -1.0):
        np.save("pattern.npy", np.full(1, value))
        sources.append(typed(text))
    assert sources[0] != sources[1]


@pytest.mark.parametrize("loaded", [True, False])
def test_a_module_that_a_session_imports_is_in_the_key(tmp_path: Path, loaded: bool) -> None:
    sys.path.insert(0, str(tmp_path))
    sources = []
    for value in ("1.0", "-1.0"):
        sys.modules.pop("my_helper", None)
        (tmp_path / "my_helper.py").write_text(f"def by():\n    return {value}\n")
        at_the_top = "from my_helper import by" if loaded else ""
        lazily = "by()" if loaded else "__import__('builtins') and 1"
        inside = (
            "" if loaded else "def later(self):\n        from my_helper import by\n        by()"
        )
        sources.append(typed(method(lazily, at_the_top, inside)))
    assert sources[0] != sources[1]


def test_results_of_code_that_cannot_be_identified_are_not_kept(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    stream = (tmp_path / "scale.txt").open("w+")
    request.addfinalizer(stream.close)
    text = method("float(stream.seek(0) or stream.read())")
    home = tmp_path / "home"
    monkeypatch.setenv("UEBENCH_HOME", str(home))
    changes = []
    for value in ("0.5", "-0.5"):
        stream.seek(0)
        stream.truncate()
        stream.write(value)
        exec(compile(text, "<cell>", "exec"), {"__name__": "__main__", "stream": stream})
        data = uebench.load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
        poison = uebench.craft("veil", data, store=Store(home))
        changes.append((poison.images.int() - data.train.images.int()).float().mean().item())
    assert changes[0] > 3
    assert changes[1] < -3
    cells = uebench.run("veil", "standard", data.name, device="cpu", **QUICK)
    assert list(cells["status"]) == ["ok"], list(cells["error"])
    assert not list((home / "v1").glob("poison/*"))
    assert not list((home / "v1").glob("cell/*"))
    assert "attack veil: its results are not kept" in caplog.text
    assert "`stream` in Veil.perturb is a _io.TextIOWrapper" in caplog.text


def test_a_redefined_attack_gives_other_images_and_accuracies() -> None:
    data = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
    images = uebench.load_dataset(data).train.images.int()
    changes, hashes = [], set()
    for value in ("1.0", "-1.0", "0.0"):
        exec(compile(method(value), "<cell>", "exec"), {"__name__": "__main__"})
        poison = uebench.craft("veil", data)
        changes.append(round((poison.images.int() - images).float().mean().item()))
        cells = uebench.run(
            "veil",
            "standard",
            data,
            device="cpu",
            arch="resnet9[width=2]",
            protocol_options={"epochs": 1},
        )
        assert list(cells["status"]) == ["ok"], list(cells["error"])
        hashes |= set(cells["poison_sha256"])
    assert changes[0] > 5
    assert changes[1] < -5
    assert changes[2] == 0
    assert len(hashes) == 3
