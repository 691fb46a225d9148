"""Are the tests sharp? `make mutants`, or `python -m tests.mutants --only attacks/em.py`.

Makes small changes of core code in a temporary copy of the project, runs the fast tests that
concern the changed file on each of them, and prints the changes that no test noticed. mutmut and
cosmic-ray start an interpreter for each mutant, of which torch alone takes seconds; here every
mutant is tried in a fork of a process that has imported all libraries already.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import pytest

from .mutate import chosen

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "uebench": "uebench",
    "uebench.attacks": "attacks",
    "uebench.defenses": "defenses",
    "uebench.configs": "configs",
    "uebench.published": "results/published",
}
"""Where the parts of the package lie."""
LIBRARIES = (
    *(
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "scipy.stats",
        "sklearn.linear_model",
        "PIL.Image",
    ),
    *("kornia", "pydantic", "jinja2", "click", "rich.table", "hypothesis", "jaxtyping", "beartype"),
    *("safetensors.torch", "filelock", "yaml", "matplotlib.figure"),
)
LIMIT_S = 240
"""A mutant whose tests take longer is an endless loop, which a test would have noticed."""

TARGETS: dict[str, tuple[str, ...]] = {
    "uebench/cells/plan.py": ("tests/cells/test_plan.py",),
    "uebench/cells/cell.py": ("tests/cells/test_cell.py", "tests/cells/test_pinned_keys.py"),
    "uebench/data/poison.py": ("tests/data/test_poison.py",),
    "uebench/victims/supervised.py": ("tests/victims/test_supervised.py",),
    "uebench/learn/protocol.py": ("tests/learn/test_protocol.py", "tests/cells/test_plan.py"),
    "uebench/report/statistics.py": ("tests/report/test_statistics.py",),
    "uebench/report/tables.py": ("tests/report/test_tables.py", "tests/report/test_formats.py"),
    "uebench/report/confusion.py": ("tests/report/test_confusion.py",),
    "uebench/store/store.py": ("tests/store/test_store.py",),
    "uebench/common/drafts.py": ("tests/common/test_drafts.py",),
    "uebench/data/foreign/interpret.py": ("tests/data/foreign/test_formats.py",),
    "uebench/data/foreign/arrays.py": ("tests/data/foreign/test_formats.py",),
    "uebench/share/validate.py": ("tests/cli/test_share.py",),
    "attacks/em.py": ("tests/attacks/test_em.py",),
    "attacks/rem.py": ("tests/attacks/test_rem.py",),
    "attacks/hypo.py": ("tests/attacks/test_hypo.py",),
    "attacks/lsp.py": ("tests/attacks/test_lsp.py",),
    "attacks/ar.py": ("tests/attacks/test_ar.py",),
    "attacks/adaptive_em.py": ("tests/attacks/test_adaptive_em.py",),
    "attacks/tap.py": ("tests/attacks/test_tap.py",),
    "attacks/_adversarial.py": ("tests/attacks/test_tap.py",),
    "attacks/ops.py": ("tests/attacks/test_ops.py",),
    "attacks/_one_pixel.py": ("tests/attacks/test_ops.py",),
    "attacks/cuda.py": ("tests/attacks/test_cuda.py",),
    "attacks/pil.py": ("tests/attacks/test_pil.py",),
    "attacks/cifar10_s.py": ("tests/attacks/test_cifar10_s.py",),
    "attacks/_class_wise.py": ("tests/attacks/test_class_wise.py",),
    "defenses/at.py": ("tests/defenses/test_at.py",),
    "defenses/iss.py": ("tests/defenses/test_iss.py",),
    "defenses/ueraser.py": ("tests/defenses/test_ueraser.py",),
    "defenses/mix.py": ("tests/defenses/test_baselines.py",),
    "defenses/op.py": ("tests/defenses/test_projection.py",),
    "defenses/coin.py": ("tests/defenses/test_convolutions.py",),
    "defenses/rsk_ff.py": ("tests/defenses/test_convolutions.py",),
    "defenses/sda_an.py": ("tests/defenses/test_sda_an.py",),
    "defenses/dvae.py": ("tests/defenses/test_dvae.py",),
    "defenses/blur.py": ("tests/defenses/test_baselines.py",),
}
"""The tests that concern each file."""
PINNED_KEYS = "tests/cells/test_pinned_keys.py"
"""Concerns every method too: it notices another version or default."""


class _CopyFinder:
    """Imports the package from a copy of the project, wherever it is installed."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in FOLDERS:
            return None
        return PathFinder.find_spec(name, [str((self.copy / FOLDERS[name]).parent)])


def main() -> int:
    """Try the mutants and print what became of them; return 1 if a test fails without any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--each", type=int, default=3, help="mutants per file (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants")
    parser.add_argument("--only", action="append", metavar="FILE", help="only these files")
    options = parser.parse_args()
    targets = [name for name in TARGETS if options.only is None or name in options.only]
    for library in LIBRARIES:
        importlib.import_module(library)
    noticed: dict[str, bool] = {}
    broken = []
    with tempfile.TemporaryDirectory(prefix="uebench-mutants-") as directory:
        copy = Path(directory) / "project"
        skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "docs", "benchmarks")
        shutil.copytree(ROOT, copy, ignore=skipped)
        sys.meta_path.insert(0, _CopyFinder(copy))  # type: ignore[arg-type]
        for name in targets:
            if _noticed(copy, _tests_of(name)):
                print(f"{name}: its tests fail without any change", flush=True)
                broken.append(name)
            else:
                noticed |= _try_mutants(copy, name, options.each, options.seed)
    survivors = [words for words, was_noticed in noticed.items() if not was_noticed]
    print(f"\n{len(noticed)} mutants, {len(survivors)} of which no test noticed:")
    print("".join(f"  {words}\n" for words in survivors), end="")
    return int(bool(broken))


def _tests_of(name: str) -> tuple[str, ...]:
    is_method = name.startswith(("attacks/", "defenses/"))
    return (*TARGETS[name], PINNED_KEYS) if is_method else TARGETS[name]


def _try_mutants(copy: Path, name: str, n: int, seed: int) -> dict[str, bool]:
    """Return for each of n mutants of a file, in words, whether a test noticed it."""
    path, noticed = copy / name, {}
    source = path.read_text(encoding="utf-8")
    for mutant in chosen(source, n, seed):
        path.write_text(mutant.source, encoding="utf-8")
        words = f"{name}:{mutant.line}: {mutant.before} -> {mutant.after}"
        noticed[words] = _noticed(copy, _tests_of(name))
        print(f"{'killed  ' if noticed[words] else 'SURVIVED'}  {words}", flush=True)
    path.write_text(source, encoding="utf-8")
    return noticed


def _noticed(copy: Path, tests: tuple[str, ...]) -> bool:
    """Return whether a test fails, in a fork that imports the package from the copy."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _exit_with(lambda: _run_tests(copy, tests))
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _exit_with(work: Callable[[], int]) -> None:
    """End this process with the result of some work, whatever happens in it."""
    status = 1
    try:
        status = work()
    finally:
        os._exit(status)


def _run_tests(copy: Path, tests: tuple[str, ...]) -> int:
    """Run the fast tests in these files quietly; return pytest's exit status."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.chdir(copy)
    # the names of this very package, which the tests of the copy use, must not be the original's
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "uebench")]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    flags = ["-x", "-q", "-n", "0", "-m", "not slow and not gpu", "-p", "no:cacheprovider"]
    flags += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the libraries are loaded already
    return int(pytest.main([*flags, *tests]))


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of its original
    sys.exit(main())
