"""The verbs for poison files: craft, audit, import, and a run of what was imported."""

import json
import os
import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.test_cli import DATA, FAST, call
from uebench.data import load_dataset
from uebench.report import read_cells

OTHER = "synthetic[n_train=30,n_test=20,n_classes=2,size=16]"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def noise(tmp_path: Path) -> torch.Tensor:
    """Signed deltas in [0, 1], as EM's authors save them, in `perturbation.pt`."""
    rng = torch.Generator().manual_seed(0)
    made = torch.randint(-8, 9, (40, 3, 16, 16), generator=rng) / 255
    torch.save(made, tmp_path / "perturbation.pt")
    return made


@pytest.mark.usefixtures("noise")
def test_an_imported_poison_runs_like_any_attack(tmp_path: Path) -> None:
    result = call("import", "perturbation.pt", "--dataset", DATA, "--name", "em-authors")
    assert result.exit_code == 0, result.output
    assert "imported:em_authors" in result.stdout
    assert "linf 8/255" in result.stdout
    listed = {row["name"]: row for row in json.loads(call("list", "attacks", "--json").stdout)}
    assert "perturbation.pt for synthetic" in listed["imported:em_authors"]["source"]
    assert "linf 8/255" in call("show", "attack", "imported:em_authors").stdout
    (tmp_path / "mine.yaml").write_text(
        f"attacks: [none, 'imported:em-authors']\ndefenses: [standard, at]\ndataset: '{DATA}'\n"
        "arch: 'resnet9[width=2]'\nprotocol_options: {epochs: 1}\n"
    )
    first = call("run", "mine.yaml", "--device", "cpu", "--out", "made")
    assert first.exit_code == 0, first.output
    assert "imported:em_authors" in first.stdout
    cells = read_cells(tmp_path / "made")
    assert cells["attack"].tolist() == ["none"] * 2 + ["imported:em_authors"] * 2
    assert (cells["status"] == "ok").all()
    told = json.loads((tmp_path / "made/run.json").read_text())
    (poison,) = told["poisons"].values()
    assert (poison["kind"], poison["rounding"], poison["linf_max"]) == ("deltas", "round", 8.0)
    at = cells[(cells["defense"] == "at") & (cells["attack"] != "none")]["key"].item()
    assert told["recipes"][at]["options"]["radius"] == 4 / 255
    for form in ("text", "latex", "markdown"):
        assert "imported:em" in call("table", "made", "--format", form).stdout
    (tmp_path / "perturbation.pt").unlink()
    again = call("run", "mine.yaml", "--device", "cpu", "--out", "again")
    assert "4 cells, 4 already computed" in again.stderr
    other = call("run", "--attacks", "imported:em_authors", "--dataset", OTHER)
    assert other.exit_code == 2
    assert f"imported:em_authors belongs to {DATA}, not to {OTHER}" in " ".join(
        other.stderr.split()
    )


def test_crafted_files_are_imported_as_they_are() -> None:
    assert call("craft", "lsp", "--dataset", DATA, "--out", "lsp", *FAST[-2:]).exit_code == 0
    result = call("import", "lsp", "--dataset", DATA, "--name", "lsp", "--json")
    found = json.loads(result.stdout)
    assert found["as_recorded"]
    assert found["labels_differ"] == 0
    back = call("craft", "imported:lsp", "--dataset", DATA, "--out", "b.npz", *FAST[-2:])
    assert back.exit_code == 0, back.output
    with np.load("b.npz") as file:
        images = file["images"]
    with Image.open("lsp/3.png") as picture:
        assert np.array_equal(images[3], np.asarray(picture))


def test_a_mixture_takes_an_imported_part_and_its_card_and_audit_list_what_it_holds() -> None:
    assert call("craft", "lsp", "--dataset", DATA, "--out", "lsp", *FAST[-2:]).exit_code == 0
    assert call("import", "lsp", "--dataset", DATA, "--name", "theirs").exit_code == 0
    spec = "mix[imported:theirs=0.5,random_class=0.25]"
    crafted = call("craft", spec, "--dataset", DATA, "--out", "m.npz", *FAST[-2:])
    assert crafted.exit_code == 0, crafted.output
    lines = [line.split(maxsplit=1) for line in crafted.stdout.splitlines()]
    parts = [text for name, text in lines if name == "part"]
    assert [part.partition("[")[0] for part in parts] == [
        "20 images by imported:theirs",
        "10 images by random_class",
    ]
    with np.load("m.npz") as file:
        assert len(file["index"]) == 30, "the other images are clean and not in the file"
    audit = call("audit", "m.npz", "--dataset", DATA)
    assert "30 of 40 training images" in audit.stdout
    assert "as recorded" in audit.stdout
    card = call("card", "m.npz", "--dataset", DATA)
    assert card.stdout.count("| part of the mixture |") == 2
    assert "20 images: `imported:theirs" in card.stdout


@pytest.mark.usefixtures("noise")
def test_pictures() -> None:
    assert call("craft", "lsp", "--dataset", DATA, "--picture", "p.png", *FAST[-2:]).exit_code == 0
    audit = call("audit", "perturbation.pt", "--dataset", DATA, "--picture", "q.png")
    assert audit.exit_code == 0, audit.output
    for name in ("p.png", "q.png"):
        with Image.open(name) as picture:
            assert picture.mode == "RGB"
            assert picture.width > 500
    assert sorted(path.name for path in Path().iterdir()) == ["p.png", "perturbation.pt", "q.png"]


def test_the_audit_reads_what_authors_release(noise: torch.Tensor) -> None:
    found = json.loads(call("audit", "perturbation.pt", "--dataset", DATA, "--json").stdout)
    assert (found["kind"], found["scale"], found["form"]) == ("deltas", "unit", "torch")
    assert found["budgets_kept"]["linf 8/255"]
    assert not found["budgets_kept"]["linf 4/255"]
    assert found["labels_from"] == "the clean set"
    data = load_dataset(DATA).train
    changed = 1 - data.labels[:5]
    np.savez("p.npz", x=noise[:5] * 255, y=changed, index=np.arange(5)[::-1])
    found = json.loads(call("audit", "p.npz", "--dataset", DATA, "--json").stdout)
    assert found["images"] == 5
    assert found["labels_differ"] > 0
    assert not found["order_kept"]


def test_foreign_names_print_no_terminal_commands(noise: torch.Tensor) -> None:
    odd = "\x1b[31m[/red]"
    np.savez("p[b].npz", **{odd: noise.numpy()})
    for verb in (["audit"], ["import", "--name", "odd"]):
        result = call(verb[0], "p[b].npz", "--dataset", DATA, *verb[1:])
        assert result.exit_code == 0, result.output
        assert r"\x1b[31m[/red]" in result.stdout
        assert "\x1b" not in result.output
    assert "p[b].npz for" in call("list", "attacks").stdout


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch pwned",)


IMPORT = f"--dataset {DATA} --name x"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (f"import none.pt {IMPORT}", "no such file"),
        (
            f"import runs.pkl {IMPORT}",
            "system', and only arrays, numbers, dicts and lists are read; it was not run",
        ),
        (f"import text {IMPORT}", "is not a readable poison file; give a folder or zip"),
        (f"import short.npy {IMPORT}", "3 images, " + DATA + " has 40 training images"),
        (f"import unclear.npy {IMPORT}", "say which by --kind images or deltas"),
        (f"import perturbation.pt {IMPORT} --key a", "--key 'a'"),
        (f"import perturbation.pt {IMPORT} --scale levels", "changes no image"),
        (f"import perturbation.pt {IMPORT} --kind pictures", "'--kind'"),
        (f"import perturbation.pt --dataset {DATA} --name a/b", "use letters, digits and _"),
        (f"import perturbation.pt --dataset {OTHER} --name x", "has 30 training images"),
        ("import perturbation.pt --name x", "Missing option '--dataset'"),
        (f"run --attacks imported:x --dataset {DATA}", "no poison was imported as x; none was"),
        (f"run --attacks imported:x[epz=1] --dataset {DATA}", "did you mean eps"),
        ("run --attacks imported: --dataset synthetic", "does not begin with a name"),
        (f"craft imported:x --dataset {DATA} --out a.npz", "no poison was imported as x"),
        ("show attack imported:x", "unknown attack 'imported:x'"),
        (f"craft lsp --dataset {DATA}", "give --out FILE.npz or --picture FILE.png"),
        (f"craft lsp --dataset {DATA} --picture a.jpg", "must end in .png"),
        (f"craft lsp --dataset {DATA} --picture text.png", "is there already"),
        (f"craft lsp --dataset {DATA} --out a.pt", ".pt is not written; give FILE.npz"),
        (f"craft lsp --dataset {DATA} --out x.gif", ".gif is not written; give FILE.npz"),
        (f"audit perturbation.pt --dataset {DATA} --picture folder", "must end in .png"),
        (f"audit runs.pkl --dataset {DATA}", "it was not run"),
    ],
)
@pytest.mark.usefixtures("noise")
def test_bad_input_gets_a_sentence_and_exit_2_and_writes_nothing(
    arguments: str, told: str, tmp_path: Path
) -> None:
    Path("runs.pkl").write_bytes(pickle.dumps(Runs()))
    Path("text").write_text("a file\n")
    Path("text.png").write_text("a file\n")
    np.save("short.npy", np.zeros((3, 3, 16, 16), np.float32))
    rng = np.random.default_rng(0)
    np.save("unclear.npy", rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    before = sorted(tmp_path.rglob("*"))
    result = call(*arguments.split())
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(Path(os.environ["UEBENCH_HOME"]).rglob("*.json"))


FAULTY = """
from uebench import Attack, attack

@attack("faulty", title="Faulty", source="a test")
class Faulty(Attack):
    \"\"\"Breaks.\"\"\"

    def perturb(self, data, run):
        \"\"\"Break.\"\"\"
        {body}
"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            'return {}["palette"]',
            "KeyError: 'palette' (faulty.py, line 10: return {}[",
        ),
        ("return open('palette.npy')", "FileNotFoundError: "),
        ("return data.images @ data.labels", "RuntimeError: "),
    ],
)
def test_an_attack_that_breaks_is_reported_with_its_line(
    body: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY.replace("{body}", body))
    plugin = ["--plugin", "faulty.py"]
    result = call("craft", "faulty", *plugin, "--dataset", DATA, "--out", "a.npz")
    assert result.exit_code == 1
    assert f"attack faulty failed in perturb: {told}" in " ".join(result.stderr.split())
    assert "faulty.py, line 10" in " ".join(result.stderr.split())
    ran = call("run", "--attacks", "faulty", "--defenses", "standard", *plugin, *FAST)
    assert ran.exit_code == 1
    assert "faulty.py, line 10" in ran.stderr
    assert "tracebacks are in " in ran.stderr


def test_an_attack_that_returns_nothing_is_reported(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY.replace("{body}", "data.images * 0"))
    result = call("craft", "faulty", "--plugin", "faulty.py", "--dataset", DATA, "--out", "a.npz")
    assert result.exit_code == 1
    told = (
        "attack faulty: perturb returned nothing (is its `return` missing?); "
        "float [40, 3, 16, 16] is needed"
    )
    assert told in " ".join(result.stderr.split())


def test_craft_prints_lines_with_units_and_json_on_request() -> None:
    asked = ["craft", "lsp", "--dataset", DATA, *FAST[-2:]]
    lines = dict(
        line.split(maxsplit=1) for line in call(*asked, "--out", "a.npz").stdout.splitlines()
    )
    assert re.fullmatch(r"mean [\d.]+, largest [\d.]+, levels of 255", lines["linf"])
    assert re.fullmatch(r"mean [\d.]+, largest [\d.]+, in the pixel range \[0, 1\]", lines["l2"])
    assert re.fullmatch(r"mean [\d.]+ dB", lines["PSNR"])
    assert lines["budget"] == "l2 0.6521, kept by all images, apart from rounding to 8 bits"
    printed = json.loads(call(*asked, "--out", "b.npz", "--json").stdout)
    assert printed["sha256"] == lines["sha256"]
    alone = call(*asked, "--json")
    assert json.loads(alone.stdout)["sha256"] == lines["sha256"]
    assert "wrote" not in alone.stderr
    assert "1 pixel\n" in call("audit", "a.npz", "--dataset", DATA).stdout


def test_craft_makes_the_poison_of_a_run_with_the_same_options() -> None:
    options = ["--set", "em.rounds=1", "--set", "em.steps=1", "--set", "em.train_steps=1"]
    options += ["--set", "protocol.surrogate=resnet9[width=2]", "--dataset", DATA, *FAST[-2:]]
    crafted = call("craft", "em", *options, "--out", "em.npz", "--json")
    assert crafted.exit_code == 0, crafted.output
    run = ["run", "--attacks", "em", "--defenses", "standard", *options, *FAST[2:], "--out", "r"]
    assert call(*run).exit_code == 0
    assert json.loads(crafted.stdout)["sha256"] == read_cells(Path("r"))["poison_sha256"].item()
    wrong = call("craft", "em", "--set", "lsp.patch=4", "--out", "x.npz", "--dataset", DATA)
    assert wrong.exit_code == 2
    assert "set lsp.patch: lsp is not in this matrix; it has em" in wrong.stderr


def test_the_commands_of_a_card_work_as_they_are(tmp_path: Path) -> None:
    data = load_dataset(DATA)
    parts = {"train": data.train, "test": data.test}
    arrays = {f"{name}_images": s.images.permute(0, 2, 3, 1).numpy() for name, s in parts.items()}
    labels = {f"{name}_labels": split.labels.numpy() for name, split in parts.items()}
    np.savez("my data.npz", **arrays, **labels)
    for name, spec in (("p1", DATA), ("p2", f"npz:{tmp_path}/my data.npz[n_train=30]")):
        made = call("craft", "lsp", "--dataset", spec, "--out", f"{name}.npz", *FAST[-2:])
        assert made.exit_code == 0, made.output
        text = call("card", f"{name}.npz").stdout
        assert str(tmp_path) not in text, "the folders of a path are private"
        commands = text.partition("```sh\n")[2].partition("\n```")[0].splitlines()
        for command in commands:
            _, *words = shlex.split(command)
            result = call(*words, *(FAST[2:] if words[0] == "run" else ()))
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("mine.npz", "write npz:mine.npz"),
        ("a/mine.npz[n_train=5]", "write npz:a/mine.npz[n_train=5]"),
        ("pictures/birds", "write folder:pictures/birds for a folder of images"),
    ],
)
def test_a_path_as_a_data_set_is_answered_with_its_kind(spec: str, remedy: str) -> None:
    for words in (["run"], ["craft", "lsp", "--out", "o.npz"], ["audit", "perturbation.pt"]):
        result = call(*words, "--dataset", spec)
        assert result.exit_code == 2
        assert remedy in " ".join(result.stderr.split())
