"""A key holds all the code of a file that a method uses: every kind of edit gives another key."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
import torch

import uebench
from tests.methods.veil import forget_modules, method, typed
from uebench.cells.cell import dataset_ref, source_of
from uebench.cells.compute import _own_code
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.common.errors import MethodError
from uebench.execute.tasks import Task, from_plain, plain
from uebench.methods import registry, source
from uebench.methods.live_code import live_hash
from uebench.methods.registry import build_attack, load_file
from uebench.methods.run import Run
from uebench.methods.source import exists_only_here
from uebench.store.store import Store

pytestmark = pytest.mark.usefixtures("clean_methods")


HERE = "import sys, pathlib\nHERE = pathlib.Path(__file__).parent\nsys.path.insert(0, str(HERE))\n"


def laid_out(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def from_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Load `veil.py` of a folder as a fresh process would, and return what the key holds of it."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.setattr(registry, "_methods", {k: dict(v) for k, v in registry._methods.items()})
        patch.setattr(registry, "_files", [])
        if (folder / "lab").is_dir():  # a package with an entry point
            with registry._loading("entry point veil"):
                __import__("lab.veil")
            assert not registry.broken(), registry.broken()
        else:
            load_file(folder / "veil.py")
        source = source_of(build_attack("veil").method)["source"]
    forget_modules(folder)
    return source


FILE_EDITS = {
    "a helper": {
        "veil.py": method("by()", HERE + "from helper import by"),
        "helper.py": "def by():\n    return {n}.0\n",
    },
    "a helper of a helper": {
        "veil.py": method("by()", HERE + "from helper import by"),
        "helper.py": "from deeper import by\n",
        "deeper.py": "def by():\n    return {n}.0\n",
    },
    "a helper that is imported late": {
        "veil.py": method(
            "self.by()", HERE, "def by(self):\n        import late\n        return late.BY"
        ),
        "late.py": "BY = {n}.0\n",
    },
    "a helper that is imported by its name": {
        "veil.py": method("importlib.import_module('late').BY", HERE + "import importlib"),
        "late.py": "BY = {n}.0\n",
    },
    "a package next to it": {
        "veil.py": method("tools.sub.by.BY", HERE + "import tools.sub.by"),
        "tools/__init__.py": "",
        "tools/sub/__init__.py": "",
        "tools/sub/by.py": "BY = {n}.0\n",
    },
    "the package around a helper": {
        "veil.py": method("tools.by.BY", HERE + "import tools.by"),
        "tools/__init__.py": "import tools.by\ntools.by.BY = {n}.0\n",
        "tools/by.py": "BY = 0.5\n",
    },
    "a base class": {
        "veil.py": method("self.by()", HERE + "from base import Base", base="Base"),
        "base.py": "import uebench\nclass Base(uebench.Attack):\n    "
        "def by(self):\n        return {n}.0\n",
    },
    "a decorator": {
        "veil.py": method("by()", HERE + "from deco import deco\n@deco\ndef by():\n    return 1.0"),
        "deco.py": "def deco(f):\n    return lambda: f() * {n}\n",
    },
    "code that is executed": {
        "veil.py": method("BY", HERE + "exec((HERE / 'code.py').read_text())"),
        "code.py": "BY = {n}.0\n",
    },
    "data next to it": {
        "veil.py": method("float((HERE / 'by.txt').read_text())", HERE),
        "by.txt": "{n}.0",
    },
    "data in a folder": {
        "veil.py": method(
            "float(open(os.path.join(HERE, 'data', 'by.txt')).read())", HERE + "import os"
        ),
        "data/by.txt": "{n}.0",
    },
    "numbered data": {
        "veil.py": method("float((HERE / f'by_{1 - 1}.txt').read_text())", HERE),
        "by_0.txt": "{n}.0",
    },
    "data that are listed": {
        "veil.py": method("sum(float(f.read_text()) for f in (HERE / 'data').iterdir())", HERE),
        "data/by": "{n}.0",
    },
    "a module of its package": {
        "lab/__init__.py": "",
        "lab/veil.py": method("by()", "from .helper import by"),
        "lab/helper.py": "def by():\n    return {n}.0\n",
    },
    "a module of its package, by its full name": {
        "lab/__init__.py": "",
        "lab/veil.py": method("by()", "from lab.helper import by"),
        "lab/helper.py": "from . import deeper\ndef by():\n    return deeper.BY\n",
        "lab/deeper.py": "BY = {n}.0\n",
    },
    "a module of its package that is imported late": {
        "lab/__init__.py": "",
        "lab/veil.py": method(
            "self.by()", inside="def by(self):\n        from . import late\n        return late.BY"
        ),
        "lab/late.py": "BY = {n}.0\n",
    },
    "any module of its package": {
        "lab/__init__.py": "",
        "lab/veil.py": method(
            "importlib.import_module('lab.' + 'etal'[::-1]).BY", "import importlib"
        ),
        "lab/late.py": "BY = {n}.0\n",
    },
    "the package itself": {
        "lab/__init__.py": "BY = {n}.0\n",
        "lab/veil.py": method("lab.BY", "import lab"),
    },
    "data of its package": {
        "lab/__init__.py": "",
        "lab/veil.py": method(
            "float(files('lab.data').joinpath('by.txt').read_text())",
            "from importlib.resources import files",
        ),
        "lab/data/__init__.py": "",
        "lab/data/by.txt": "{n}.0",
    },
    "all data of its package": {
        "lab/__init__.py": "",
        "lab/veil.py": method(
            "float(next(f for f in files(__package__).iterdir() if f.suffix).read_text())",
            "from importlib.resources import files",
        ),
        "lab/by.bin": "{n}.0",
    },
    "what the plug-in does to the module of the class": {
        "veil.py": HERE + "import impl\nimpl.SCALE = {n}.0\n",
        "impl.py": method("SCALE", "SCALE = 0.5"),
    },
    "another package in the same folder": {
        "veil.py": method("by.BY", HERE + "from other.lab import by"),
        "other/lab/by.py": "BY = {n}.0\n",
    },
}


@pytest.mark.parametrize("edit", FILE_EDITS)
def test_an_edit_of_a_file_that_a_plugin_reaches_gives_another_key(
    edit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []
    for i, n in enumerate(("0", "1", "1")):
        files = {k: t.replace("{n}", n) for k, t in FILE_EDITS[edit].items()}
        sources.append(from_file(laid_out(tmp_path / str(i), files), monkeypatch))
    assert sources[0] != sources[1]
    assert sources[1] == sources[2], "the same files in another folder have the same key"


def test_a_plugin_of_one_file_keeps_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = method("torch.ones(()).item()", "import json\nimport numpy as np")
    laid_out(tmp_path, {"veil.py": text, "unrelated.py": "BY = 1", "results/cells.csv": "1"})
    assert from_file(tmp_path, monkeypatch) == hashlib.sha256(text.encode()).hexdigest()


def test_an_option_that_is_a_path_holds_the_content_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(method("1.0", inside='path: str = "by.txt"'), {"__name__": "__main__"})
    sources = []
    for value in ("0", "1"):
        Path("by.txt").write_text(value)
        sources.append(source_of(build_attack("veil[path=by.txt]").method))
    assert sources[0] != sources[1]


def test_a_plugin_that_is_changed_in_memory_is_computed_in_this_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = method("SCALE * self.by()", "SCALE = 1.0", "def by(self):\n        return 1.0")
    load_file(laid_out(tmp_path, {"veil.py": text}) / "veil.py")
    veil = build_attack("veil").method
    sources = [source_of(veil)]
    assert not exists_only_here(veil)
    sys.modules[type(veil).__module__].SCALE = 2.0  # type: ignore[attr-defined]
    sources.append(source_of(veil))
    type(veil).by = lambda self: 0.0  # type: ignore[attr-defined]
    sources.append(source_of(veil))
    assert len({source["source"] for source in sources}) == 3
    assert exists_only_here(veil)
    assert "attack veil was changed after it was loaded" in caplog.text
    with pytest.raises(ValueError, match="defined or changed in this session"):
        uebench.run("veil", "standard", device="cpu", time_limit_s=60)


def test_a_file_that_is_edited_after_it_was_loaded_gives_another_key(tmp_path: Path) -> None:
    files = {
        "veil.py": method("by()", HERE + "from edited_helper import by"),
        "edited_helper.py": "def by():\n    return 1.0\n",
    }
    load_file(laid_out(tmp_path, files) / "veil.py")
    veil = build_attack("veil").method
    before = source_of(veil)
    (tmp_path / "edited_helper.py").write_text("def by():\n    return 2.0\n")
    assert source_of(veil) != before
    assert exists_only_here(veil), "a worker would load the new file"


def test_a_worker_with_other_code_does_not_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_planned", {})
    text = method("1.0", HERE + "LOG = HERE / 'log.txt'")
    load_file(laid_out(tmp_path, {"veil.py": text}) / "veil.py")
    dataset = uebench.load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    config = make_config({"attacks": ["veil"], "defenses": ["standard"], "dataset": ["synthetic"]})
    (cell,) = plan(config, [(dataset, dataset_ref(dataset))], "cpu")
    task = plain(Task("poison", cell.poison.key, cell))
    (tmp_path / "log.txt").write_text("what a method writes while a run computes")
    assert from_plain(task).cell.poison.key == cell.poison.key
    monkeypatch.setattr(source, "_loaded", {})  # a worker loads the file when it starts
    (tmp_path / "veil.py").write_text(method("2.0"))
    with pytest.raises(MethodError, match="the code of attack veil is not the code that this run"):
        from_plain(task)


def test_tensors_that_a_plugin_keeps_depend_on_its_code(store: Store) -> None:
    kept = []
    for code, value in (("a", 1.0), ("b", 2.0), ("b", 3.0)):
        run = Run(shape=(3, 8, 8), n_classes=2, seed=0, store=store, source=code)
        kept.append(run.kept("x", {}, lambda _, v=value: {"x": torch.tensor(v)})["x"].item())  # type: ignore[misc]
    assert kept == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("changed", ["source", "victim_source"])
def test_what_a_plugin_keeps_depends_on_the_code_of_the_defense_and_of_the_victim(
    changed: str,
) -> None:
    recipe = {"source": "a", "victim_source": "b"}
    assert _own_code({**recipe, changed: "c"}) != _own_code(recipe)
    assert _own_code({changed: "c"}) == "c", "the keys of what was kept for one of them hold"
    assert _own_code({}) is None


def test_a_private_attribute_is_part_of_the_code_and_its_use_no_change(tmp_path: Path) -> None:
    sources = []
    for i, default in enumerate(("0", "1")):
        inside = f"_n: int = PrivateAttr({default})"
        text = method("0.0", "from pydantic import PrivateAttr", inside)
        load_file(
            laid_out(tmp_path, {f"veil{i}.py": text.replace("veil", f"veil{i}")}) / f"veil{i}.py"
        )
        built = build_attack(f"veil{i}").method
        assert not exists_only_here(built), "workers can load it"
        sources.append(live_hash(type(built)))
    assert sources[0] != sources[1]


def test_a_method_of_an_installed_package_is_followed_into_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []
    for i, value in enumerate(("0", "1", "1")):
        folder = tmp_path / str(i) / "site-packages"
        files = {"noises/__init__.py": "", "noises/by.py": f"def by():\n    return {value}.0\n"}
        laid_out(folder, files | {"noises/veil.py": method("by()", "from .by import by")})
        with monkeypatch.context() as patch:  # imported in a session, without an entry point
            patch.syspath_prepend(str(folder))
            importlib.import_module("noises.veil")
            sources.append(source_of(build_attack("veil").method)["source"])
        forget_modules(folder)
    assert sources[0] != sources[1]
    assert sources[1] == sources[2]


def test_what_a_plugin_changes_itself_while_a_run_is_planned_is_no_change(tmp_path: Path) -> None:
    inside = "def resolve(self, facts):\n        N.append(1)\n        return self"
    load_file(laid_out(tmp_path, {"veil.py": method("len(N)", "N = []", inside)}) / "veil.py")
    dataset = uebench.load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    config = make_config({"attacks": ["veil"], "defenses": ["standard"], "dataset": ["synthetic"]})
    (cell,) = plan(config, [(dataset, dataset_ref(dataset))], "cpu")
    assert not exists_only_here(cell.poison.attack), "workers can load it"


def test_a_method_that_is_built_on_one_of_the_suite_holds_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out(tmp_path, {"veil.py": method("EM is None", "from uebench.attacks.em import EM")})
    before = from_file(tmp_path, monkeypatch)
    monkeypatch.setattr(sys.modules["uebench.attacks.em"].EM, "version", 1000)
    assert from_file(tmp_path, monkeypatch) != before


def test_a_replaced_function_of_the_suite_gives_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lsp = build_attack("lsp").method
    assert source_of(lsp) == {}
    assert not exists_only_here(lsp)
    sources = []
    for value in (1.0, 2.0):
        monkeypatch.setattr(type(lsp), "perturb", lambda self, data, run, v=value: v)
        sources.append(source_of(lsp)["source"])
    assert sources[0] != sources[1]
    assert exists_only_here(lsp), "a worker has the suite's own function"
    monkeypatch.undo()
    assert source_of(lsp) == {}


def test_deeply_nested_data_are_not_kept_and_break_no_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = method("len(DEEP)", "DEEP = []\nfor _ in range(100_000):\n    DEEP = [DEEP]")
    assert typed(text) != typed(text)
    assert "nested too deeply" in caplog.text
    load_file(laid_out(tmp_path, {"deep.py": text.replace('"veil"', '"deep"')}) / "deep.py")
    assert not exists_only_here(build_attack("deep").method)
