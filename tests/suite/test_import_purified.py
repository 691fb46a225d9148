"""Purified training sets as defenses: what is accepted, and which cells they have."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import uebench
from uebench import UserError
from uebench.cells.plan import resolve_precision
from uebench.cli import main
from uebench.data import load_dataset
from uebench.methods.registry import find
from uebench.store.store import Store
from uebench.suite.import_purified import import_purified
from uebench.suite.single import train

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
FAST = {"protocol": "quick", "arch": "resnet9[width=2]", "epochs": 1, "quiet": True}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def purified(tmp_path: Path) -> Path:
    """A file of the images halfway between an LSP poison and the clean images."""
    data = load_dataset(DATA)
    poison = uebench.craft("lsp[eps=4]", data)
    images = (poison.images.int() + data.train.images.int()) // 2
    file = tmp_path / "purified.npz"
    np.savez(file, images=images.to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return file


def load(file: Path) -> np.ndarray:
    with np.load(file) as arrays:
        return np.asarray(arrays["images"])


def test_the_record_names_the_poison_and_measures_the_set_against_both(purified: Path) -> None:
    record = import_purified(purified, DATA, "lsp_half", of="lsp[eps=4]", by="averaging")
    poison = uebench.craft("lsp[eps=4]", DATA)
    assert record["name"] == "purified:lsp_half"
    assert record["poison_sha256"] == poison.meta["sha256"]
    clean = load_dataset(DATA).train.images
    images = torch.from_numpy(load(purified)).permute(0, 3, 1, 2)
    for what, other in (("clean", clean), ("poison", poison.images)):
        mse = ((images.double() - other.double()) / 255).square().mean((1, 2, 3))
        assert record[f"psnr_to_{what}"] == pytest.approx(
            (-10 * mse.log10()).mean().item(), abs=1e-3
        )
        assert 0 < record[f"ssim_to_{what}"] < 1


def test_it_is_a_column_that_trains_on_its_images_and_has_cells_for_its_poison_alone(
    purified: Path,
) -> None:
    import_purified(purified, DATA, "half", of="lsp[eps=4]", by="averaging")
    attacks, defenses = ["none", "lsp", "lsp[eps=4]"], ["standard", "purified:half"]
    table = uebench.run(attacks, defenses, DATA, **FAST)
    cells = table[table["defense"] == "purified:half"]
    assert list(cells["attack_options"]) == ["eps=4"]
    assert set(table["status"]) == {"ok"}
    assert len(table) == 4
    # the same images as a poison of their own under standard training give the same number
    uebench.import_poison(purified, DATA, "half")
    alone = uebench.run(["imported:half"], ["standard"], DATA, **FAST)
    assert cells["train_acc"].item() == alone["train_acc"].item()
    assert cells["test_acc"].item() == alone["test_acc"].item()
    record = Store().read("cell", cells["key"].item())
    assert record is not None
    assert record[1]["purified"]["by"] == "averaging"


def test_seeds_of_the_poison_that_were_not_purified_have_no_cell(purified: Path) -> None:
    import_purified(purified, DATA, "half", of="lsp[eps=4]", by="averaging")
    table = uebench.run(
        ["lsp[eps=4]"], ["purified:half"], DATA, poison_seeds=[0, 1], ratio=[0.5, 1.0], **FAST
    )
    assert list(table["poison_seed"]) == [0]
    assert list(table["ratio"]) == [1.0]


def test_one_name_may_stand_for_sets_of_several_poisons(purified: Path) -> None:
    import_purified(purified, DATA, "half", of="lsp[eps=4]", by="averaging")
    uebench.craft("lsp[eps=5]", DATA)
    import_purified(purified, DATA, "half", of="lsp[eps=5]", by="averaging")
    attacks = ["lsp[eps=4]", "lsp[eps=5]"]
    assert len(uebench.run(attacks, ["purified:half"], DATA, **FAST)) == 2


def test_other_images_under_a_taken_name_need_replace(purified: Path, tmp_path: Path) -> None:
    given = {"of": "lsp[eps=4]", "by": "averaging"}
    first = import_purified(purified, DATA, "half", **given)
    other = tmp_path / "other.npz"
    np.savez(other, images=load(purified) // 2 + 60)
    with pytest.raises(UserError, match="already has other images for lsp"):
        import_purified(other, DATA, "half", **given)
    second = import_purified(other, DATA, "half", replace=True, **given)
    assert first["sha256"] != second["sha256"]
    key = f"half.{first['poison_key']}"
    entry = Store().read("purified", key)
    assert entry is not None
    assert entry[1]["sha256"] == second["sha256"]


def _shorter(images: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": images[:30], "index": np.arange(30)}


def _other_order(images: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": np.random.default_rng(0).permutation(images)}


def _partly_in_another_order(images: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": np.concatenate((images[:10][::-1], images[10:]))}


def _other_size(images: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": images[:, :8, :8]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shorter, "has 30 images, but the poison of lsp[eps=4] has 40"),
        (_other_order, "resemble the one before their own in synthetic"),
        (_partly_in_another_order, "of 40 images of"),
        (_other_size, "16"),
    ],
)
def test_another_length_order_or_size_is_refused(
    change, message: str, purified: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.npz"
    np.savez(file, **change(load(purified)))
    result = call(
        *("import", "--purified", str(file), "--of", "lsp[eps=4]", "--by", "x"),
        *("--dataset", DATA, "--name", "bad"),
    )
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (Store().base / "purified").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--of", "lsp", "--by", "x"], "the poison of lsp on synthetic"),
        (["--of", "none", "--by", "x"], "--of none is clean data"),
        (["--of", "nosuch", "--by", "x"], "nosuch"),
        (["--of", "imported:nosuch", "--by", "x"], "no poison was imported as nosuch"),
        (["--of", "lsp[eps=4]", "--by", " "], "--by must name the method"),
        (["--of", "lsp[eps=4]"], "--purified needs --of ATTACK"),
    ],
)
def test_an_unknown_poison_or_method_is_refused(
    flags: list[str], message: str, purified: Path
) -> None:
    result = call("import", "--purified", str(purified), *flags, "--dataset", DATA, "--name", "a")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_the_poison_and_the_clean_set_themselves_are_refused(
    purified: Path, tmp_path: Path
) -> None:
    poison, clean = uebench.craft("lsp[eps=4]", DATA), load_dataset(DATA).train
    for what, images in (("poison", poison.images), ("clean", clean.images)):
        file = tmp_path / f"{what}.npz"
        np.savez(file, images=images.permute(0, 2, 3, 1).numpy())
        with pytest.raises(UserError, match=f"is the {what} set itself"):
            import_purified(file, DATA, "same", of="lsp[eps=4]", by="x")


def test_flags_of_purified_sets_need_purified(purified: Path) -> None:
    result = call("import", str(purified), "--of", "lsp", "--dataset", DATA, "--name", "a")
    assert result.exit_code == 2
    assert "--of belongs to --purified" in " ".join(result.stderr.split())


def test_the_command_line_lists_shows_and_runs_it(purified: Path, tmp_path: Path) -> None:
    imported = call(
        *("import", "--purified", str(purified), "--of", "lsp[eps=4]", "--by", "avatar"),
        *("--dataset", DATA, "--name", "em_avatar", "--json"),
    )
    assert imported.exit_code == 0, imported.output
    assert json.loads(imported.stdout)["by"] == "avatar"
    assert "purified:em_avatar" in imported.stderr
    assert "purified:em_avatar" in " ".join(call("list", "defenses").stdout.split())
    assert "purified by avatar" in call("show", "purified:em_avatar").stdout
    out = tmp_path / "results"
    ran = call(
        *("run", "--dataset", DATA, "--attacks", "lsp[eps=4]", "--epochs", "1", "--out", str(out)),
        *("--defenses", "standard,purified:em_avatar"),
    )
    assert ran.exit_code == 0, ran.output
    assert call("validate", str(out)).exit_code == 0
    shutil.rmtree(purified.parent / "purified.npz", ignore_errors=True)
    assert call("verify", str(out), "--sample", "2").exit_code == 0


def test_a_set_without_a_poison_in_the_matrix_is_refused(purified: Path) -> None:
    import_purified(purified, DATA, "half", of="lsp[eps=4]", by="averaging")
    with pytest.raises(UserError, match=r"was made from lsp\[eps=4\] on synthetic"):
        uebench.run(["none", "lsp"], ["standard", "purified:half"], DATA, **FAST)
    with pytest.raises(UserError, match="no purified set was imported as halves"):
        uebench.run(["lsp[eps=4]"], ["purified:halves"], DATA, **FAST)


def test_training_alone_says_what_to_do_instead(purified: Path) -> None:
    assert find("defense", "purified:half").info.title == "purified:half"
    poison = uebench.craft("lsp[eps=4]", DATA)
    with pytest.raises(uebench.UserError, match="can only be used by `uebench run`"):
        train(poison, "purified:half", DATA, epochs=1)


def test_pruning_keeps_it(purified: Path) -> None:
    import_purified(purified, DATA, "half", of="lsp[eps=4]", by="averaging")
    assert call("store", "prune", "--older-than", "0s", "--yes").exit_code == 0
    assert (Store().base / "purified").exists()
    assert call("store", "prune", "--older-than", "0s", "--imported", "--yes").exit_code == 0
    assert not list((Store().base / "purified").glob("*"))


def test_the_poison_is_found_by_the_options_and_the_precision_that_it_was_crafted_with(
    purified: Path, tmp_path: Path
) -> None:
    other = "bf16" if resolve_precision("auto", "cpu") == "fp32" else "fp32"
    sets = {"lsp.eps": 3, "protocol.precision": other}
    uebench.craft("lsp", DATA, set=sets)
    given = ["--set", "lsp.eps=3", "--set", f"protocol.precision={other}"]
    words = ["import", str(purified), "--purified", "--of", "lsp", "--by", "averaging"]
    words += ["--dataset", DATA, "--name", "half"]
    missing = call(*words, *given[:2])
    assert missing.exit_code == 2
    assert "is not in the store; give the --protocol, --set and" in " ".join(missing.stderr.split())
    done = call(*words, *given)
    assert done.exit_code == 0, done.output
    assert f"--set protocol.precision={other}" in done.stderr
    refused = call(*(word for word in words if word not in ("--purified",)), *given)
    assert "--of, --by, --set belongs to --purified" in refused.stderr
