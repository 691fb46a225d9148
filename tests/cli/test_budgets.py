"""Poisons whose budget is a number of pixels or has no bound, from crafting to validation."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import uebench
from uebench.cli import main
from uebench.data import Dataset, load_dataset
from uebench.data.poison_files import audit_poison
from uebench.data.poison_writing import write_poison
from uebench.share.validate import validate

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
SMALL = {"arch": "resnet9[width=2]", "epochs": 1}
HALF = {
    "ops": "4/255 in linf, as on clean data: the poison's budget counts pixels",
    "cuda": "4/255 in linf, as on clean data: the poison's budget has no bound",
}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("attack", ["ops", "cuda", "cifar10_s[rounds=1,train_steps=1,steps=1]"])
def test_training_on_such_a_poison_takes_the_radius_of_clean_data(
    attack: str, tiny: Dataset
) -> None:
    poison = uebench.craft(attack, tiny, protocol="quick")
    note = HALF["ops" if attack == "ops" else "cuda"]
    record = uebench.train(poison, "at", tiny, robust=True, **SMALL)
    assert record["half_budget"] == note
    assert (record["robust_norm"], record["robust_radius"]) == ("linf", 4 / 255)
    assert "half_budget" not in uebench.train(poison, "at[radius=8/255]", tiny, **SMALL)
    assert "half_budget" not in uebench.train(poison, "standard", tiny, **SMALL)
    bounded = uebench.train(uebench.craft("lsp", tiny), "at", tiny, robust=True, **SMALL)
    assert "half_budget" not in bounded


def test_a_run_records_the_budgets_and_its_bundle_is_checked_against_them(tmp_path: Path) -> None:
    out = tmp_path / "made"
    options = {"arch": SMALL["arch"], "protocol_options": {"epochs": 1}}
    uebench.run("none,ops,cuda", "at", DATA, out=out, device="cpu", **options)
    facts = json.loads((out / "run.json").read_text())
    budgets = {p["recipe"]["attack"]: p["budget"] for p in facts["poisons"].values()}
    assert budgets == {"ops": {"norm": "l0", "eps": 1.0}, "cuda": {"norm": "none", "eps": None}}
    page = call("report", str(out))
    assert page.exit_code == 0, page.output
    html = (out / "index.html").read_text()
    for note in HALF.values():
        assert note.replace("'", "&#39;") in html
    bundle = tmp_path / "bundle"
    made = call("publish", str(out), str(bundle), "--licence", "MIT")
    assert made.exit_code == 0, made.output
    assert not [f for f in validate(bundle) if f.status == "failed"]
    facts = json.loads((bundle / "run.json").read_text())
    for poison in facts["poisons"].values():
        poison["l0_max"] = 2.0
    (bundle / "run.json").write_text(json.dumps(facts))
    (found,) = [f for f in validate(bundle) if f.test == "poisons"]
    exceeded = [problem for problem in found.problems if "its budget allows" in problem]
    assert len(exceeded) == 1, "pixels are bounded, convolutions are not"
    assert "has a norm of 2, but its budget allows 1" in exceeded[0]


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("ops", "| budget | l0 1, changed pixels"),
        ("cuda", "| budget | none, changes have no bound"),
    ],
)
def test_cards_and_audits_give_the_budget(attack: str, words: str, tmp_path: Path) -> None:
    dataset = load_dataset(DATA)
    poison = uebench.craft(attack, dataset, device="cpu")
    write_poison(poison, tmp_path / "p.npz", dataset)
    card = call("card", str(tmp_path / "p.npz"), "--dataset", DATA)
    assert card.exit_code == 0, card.output
    assert words in card.stdout
    assert f"l0 {poison.meta['l0_max']:.4g} pixels" in card.stdout
    assert audit_poison(poison, dataset)["budgets_kept"]["l0 1"] is (attack == "ops")


def test_an_imported_poison_can_be_measured_in_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "home"))
    dataset = load_dataset(DATA)
    write_poison(uebench.craft("ops[sparsity=2]", dataset), tmp_path / "p.npz", dataset)
    uebench.import_poison(tmp_path / "p.npz", DATA, "shortcut")
    radii = []
    for norm in ("linf", "l0", "none"):
        frame = uebench.run(
            f"imported:shortcut[norm={norm}]",
            "at",
            DATA,
            out=tmp_path / norm,
            arch=SMALL["arch"],
            protocol_options={"epochs": 1},
            device="cpu",
        )
        facts = json.loads((tmp_path / norm / "run.json").read_text())
        radii.append(facts["recipes"][frame["key"][0]]["options"]["radius"])
    assert radii[0] > 0.1
    assert radii[1] == radii[2] == 4 / 255
