"""Over a thousand hostile inputs: none runs code or ends in a traceback, none is slow or large."""

import functools
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.data.foreign.helpers import DATA
from tests.hostile import generators as make
from uebench.cells.config import make_config, read_config
from uebench.cli import main
from uebench.data import load_dataset
from uebench.data.foreign import read_poison
from uebench.data.synthetic import make_synthetic
from uebench.methods.registry import build_attack, build_defense, load
from uebench.models import parse_arch

ACCEPTED = (ValueError, KeyError, LookupError, FileNotFoundError)
"""What the command line turns into one sentence and exit status 2."""
LONGEST_S = 2.0
MORE_BYTES = 500 * 10**6
SMALL = ["--dataset", "synthetic[n_train=40,n_test=20,n_classes=2,size=16]", "--dry-run"]
SIZES = {"specs": 420, "yamls": 160, "npzs": 150, "pictures": 120, "pickles": 240, "commands": 60}
RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "os.startfile")


@functools.cache
def corpus(kind: str) -> list[tuple[str, Any]]:
    """Return the inputs of one kind, which several tests need, each with its name."""
    return list(getattr(make, kind)(SIZES[kind]))


_watching: list[str] = []
_seen: list[str] = []


def _audit(event: str, _: Any) -> None:
    if _watching and event in RUNNING:
        _seen.append(event)


sys.addaudithook(_audit)


def attempt(name: str, action: Callable[[], Any]) -> None:
    """Do what a hostile input asks for: it ends in a sentence or well, soon, and runs nothing."""
    start = time.process_time()
    _watching.append(name)
    try:
        action()
    except ACCEPTED as error:
        told = str(error.args[0] if error.args else error)
        assert told.strip(), f"{name}: nothing is said"
        assert len(told) < 3500, f"{name}: {len(told)} characters are said"
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        _watching.clear()
    assert time.process_time() - start < LONGEST_S, f"{name} is slow"
    assert not _seen, f"{name} runs {_seen}"


def try_spec(text: str) -> None:
    """Read a text as everything that a spec may name."""
    reads = (build_attack, build_defense, parse_arch, load_dataset)
    for read in reads:
        try:
            read(text)  # type: ignore[operator]
        except ACCEPTED as error:
            last = error
        else:
            return
    raise last


def try_npz(path: Path) -> None:
    names = load_dataset(f"npz:{path}").class_names
    assert all(name.isprintable() for name in names)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Command lines with something nasty in every place."""
    places: list[Callable[[str], list[str]]] = [
        lambda text: ["run", "--dataset", text, "--dry-run"],
        lambda text: ["run", *SMALL, "--attacks", text],
        lambda text: ["run", *SMALL, "--attacks", "em", "--set", f"em.rounds={text}"],
        lambda text: ["run", *SMALL, "--attacks", "lsp", "--classes", text],
        lambda text: ["run", text, *SMALL],
        lambda text: ["show", "attack", text],
        lambda text: ["table", text],
        lambda text: ["audit", text, *SMALL[:2]],
        lambda text: ["verify", text],
        lambda text: ["store", "prune", "--kind", text],
    ]
    texts = [text for text in make.NASTY if "\x00" not in text and "\ud800" not in text]
    for i in range(SIZES["commands"]):
        text = texts[i % len(texts)][:3000]
        yield f"command {i}", places[i % len(places)]("x" + text if text[:1] in "-" else text)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load()  # the methods, once, or the first case would pay for it
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _seen.clear()
    yield
    assert not list((tmp_path / "here").iterdir()), "something was written"


def small_synthetic(**options: int) -> Any:
    """Refuse what takes long because it asks for many images, which is no mistake."""
    if options.get("n_train", 0) + options.get("n_test", 0) > 300 or options.get("size", 0) > 64:
        raise ValueError("more images than this test makes")
    return make_synthetic(**options)


def test_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uebench.data.sources.make_synthetic", small_synthetic)
    for name, text in corpus("specs"):
        attempt(f"{name}: {text[:200]!r}", lambda text=text: try_spec(text))


def test_configurations(tmp_path: Path) -> None:
    for name, content in corpus("yamls"):
        path = make.write(tmp_path, "c.yaml", content)
        attempt(name, lambda path=path: make_config(read_config(str(path))))


def test_a_few_anchors_are_followed(tmp_path: Path) -> None:
    path = make.write(tmp_path, "c.yaml", b"attacks: &a [em, lsp]\nset: {em.rounds: 3}\n")
    assert make_config(read_config(str(path))).attacks == ["em", "lsp"]
    path.write_text("x: &a [em]\nattacks: *a\n")
    assert read_config(str(path))["attacks"] == ["em"]
    for name in ("laughs", "merges"):
        path.write_text(make.YAML_CASES[name])
        with pytest.raises(ValueError, match="too many anchors"):
            read_config(str(path))


def test_data_sets(tmp_path: Path) -> None:
    for name, content in corpus("npzs"):
        path = make.write(tmp_path, "d.npz", content)
        attempt(name, lambda path=path: try_npz(path))


def test_pictures(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in "ab":
            make.write(tmp_path, f"d/{part}/{label}/0.png", make.png((8, 8)))
    load_dataset(f"folder:{tmp_path / 'd'}")
    for name, content in corpus("pictures"):
        make.write(tmp_path, "d/train/a/0.png", content)
        attempt(name, lambda: load_dataset(f"folder:{tmp_path / 'd'}"))
    (tmp_path / "d/train/a/0.png").unlink()
    os.mkfifo(tmp_path / "d/train/a/0.png")  # reading it would wait for ever
    with pytest.raises(ValueError, match="has no images"):
        load_dataset(f"folder:{tmp_path / 'd'}")


def test_pickles_and_torch_files(tmp_path: Path) -> None:
    for name, content in corpus("pickles"):
        path = make.write(tmp_path, "p.pt" if name.startswith("torch") else "p.pkl", content)
        attempt(name, lambda path=path: read_poison(path, DATA))


def test_kernels_of_strangers(tmp_path: Path) -> None:
    from uebench.attacks.ar import read_kernels

    bomb = make.npz_cases()["bomb"]
    for name, content in [("bomb.npz", bomb), *corpus("npzs")[:60], *corpus("pickles")[:60]]:
        suffix = ".npz" if "npz" in name else ".pt"
        path = make.write(tmp_path, f"k{suffix}", content)
        attempt(f"kernels {name}", lambda path=path: read_kernels(path, 2, (3, 8, 8)))


def test_command_lines() -> None:
    for name, words in commands():
        start = time.process_time()
        result = CliRunner().invoke(main, words)
        assert time.process_time() - start < LONGEST_S, f"{name} is slow"
        raised = result.exception
        assert raised is None or isinstance(raised, SystemExit), f"{name} {words}: {raised!r}"
        assert "Traceback" not in result.output
        assert "\x1b" not in result.output, f"{name}: {result.output!r}"
        assert "\x9b" not in result.output
        assert result.exit_code in (0, 2), name


def _worst(folder: Path) -> list[tuple[str, Callable[[], Any]]]:
    """The inputs that would take the most memory."""
    cases: list[tuple[str, Callable[[], Any]]] = []
    for name in ("laughs", "merges", "huge", "deep flow", "seeds"):
        path = make.write(folder, f"{name}.yaml", make.YAML_CASES[name].encode())
        cases.append((name, lambda path=path: make_config(read_config(str(path)))))
    npz = make.npz_cases()
    for name in ("bomb", "huge", "overflow", "wide names", "many names", "members", "objects"):
        path = make.write(folder, f"{name}.npz", npz[name])
        cases.append((name, lambda path=path: load_dataset(f"npz:{path}")))
    good = make.png((8, 8))
    for name, content in make.picture_cases().items():
        root = folder / f"pictures {name}"
        for place in ("train/a", "train/b", "test/a", "test/b"):
            make.write(root, f"{place}/0.png", good)
        make.write(root, "train/a/0.png", content)
        cases.append((name, lambda root=root: load_dataset(f"folder:{root}")))
    return cases


def _bounded(cases: list[tuple[str, Callable[[], Any]]], told: str) -> None:
    """Try the cases with 500 MB more than this process has; write what goes wrong."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    wrong = []
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        for name, action in cases:
            try:
                attempt(name, action)
            except BaseException as error:
                wrong.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    Path(told).write_text("\n".join(wrong))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_none_takes_500_mb(tmp_path: Path) -> None:
    cases = _worst(tmp_path)
    child = multiprocessing.get_context("fork").Process(
        target=_bounded, args=(cases, str(tmp_path / "told"))
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert (tmp_path / "told").read_text() == ""


def test_the_corpus_is_as_large_as_promised() -> None:
    made = [corpus(kind) for kind in ("specs", "yamls", "npzs", "pictures", "pickles")]
    assert sum(map(len, made)) + SIZES["commands"] >= 1100
    for cases in made:
        assert len({content for _, content in cases}) > 0.9 * len(cases), "they repeat"
