"""Ours beside what was published: what is joined, what differs, and files that are refused."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from uebench.methods.meanings import known_meanings
from uebench.report.compare import (
    Compared,
    compared_dataset,
    distinguishing,
    ours_of,
    rank_correlations,
)
from uebench.report.compare import with_published as compare
from uebench.report.comparison_table import (
    _pair,
    caveats,
    comparison_layout,
    comparison_records,
)
from uebench.report.published import PUBLISHED_COLUMNS, Published, read_published
from uebench.report.tables import leaderboards

PAPER = {"dataset": "cifar10", "protocol": "paper", "epochs": 200, "n_train": 50_000}
PAPER |= {"n_test": 10_000}


@pytest.fixture(scope="module")
def published() -> list[Published]:
    return read_published()


@pytest.fixture
def against(cells, published):
    """Return what compares cells, each given by how it differs from EM on the paper's setting."""

    def make(*differences: dict[str, object], table: str = "") -> list[Compared]:
        frame = cells(*(PAPER | difference for difference in differences))
        return compare(ours_of(leaderboards(frame), {}), published, table, known_meanings())

    return make


def test_every_published_number_is_loaded(published):
    counts = {s: sum(row.source == s for row in published) for s in {r.source for r in published}}
    assert counts == {
        **{"ueraser-2023": 181, "apbench-2023": 278, "iss-2023": 39, "ar-2022": 4},
        **{"delusive-2021": 10, "bridgepure-2024": 113, "ops-2023": 65, "entf-2023": 41},
        **{"cuda-2023": 40, "pil-2026": 40, "ntga-2021": 21, "rsk-2024": 9, "cp-2023": 6},
        **{"sep-2023": 2, "op-2023": 1},
    }
    assert all(0 < row.accuracy < 1 for row in published)


def test_numbers_at_second_hand_count_only_where_they_are_asked_for(published, cells):
    everything = read_published(secondhand=True)
    copied = [row for row in everything if row.secondhand]
    assert len(everything) == len(published) + len(copied)
    assert len(copied) == 206
    assert {row.source for row in copied} == {
        *("mi-ue-2026 [S]", "dune-2026 [S]", "coin-2023 [S]", "cuda-2023 [S]", "pil-2026 [S]"),
        "bridgepure-2024 [S]",
    }
    frame = cells(PAPER | {"attack": "em", "defense": "at", "defense_options": "radius=4/255"})
    spans = [
        compare(ours_of(leaderboards(frame), {}), rows, "", known_meanings())[0].span
        for rows in (published, everything)
    ]
    assert spans == [(0.8624, 0.8624), (0.8429, 0.8862)]


@pytest.mark.parametrize(
    ("attack", "defense", "options", "sources"),
    [
        ("em", "at", "", {"ueraser-2023"}),
        ("em", "at", "radius=4/255", {"ueraser-2023"}),
        ("em", "at", "radius=8/255", {"apbench-2023", "ops-2023", "entf-2023", "bridgepure-2024"}),
        ("em", "at", "norm=linf,radius=8/255,steps=10,step=2/255", "the same"),
        ("lsp", "at", "", {"ueraser-2023"}),
        ("lsp", "at", "radius=8/255", set()),
        ("lsp", "at", "norm=linf,radius=8/255", {"apbench-2023", "bridgepure-2024"}),
        ("cuda", "at", "", {"cuda-2023"}),
        ("cuda", "at", "radius=8/255", {"cuda-2023"}),
        ("cuda", "at", "norm=l2,radius=0.5", {"cuda-2023"}),
        ("ops", "at", "radius=8/255", {"apbench-2023", "ops-2023", "bridgepure-2024"}),
        ("ops", "at", "", set()),
        ("em", "at8", "", "the same"),
        ("em", "at4", "", {"ueraser-2023"}),
        ("em", "at4", "radius=8/255", "the same"),
        ("lsp", "at8", "", {"apbench-2023", "bridgepure-2024"}),
        ("cuda", "at_l2", "", {"cuda-2023"}),
        ("cuda", "at_l2", "radius=0.75", {"cuda-2023"}),
        ("cuda", "at8", "augment=cutout", set()),
        ("ops", "at8", "augment=cutout", {"ops-2023"}),
        ("em", "at", "radius=8/255,augment=mixup", {"ops-2023"}),
    ],
)
def test_adversarial_training_is_compared_at_its_radius(
    attack: str, defense: str, options: str, sources: set[str] | str, against
) -> None:
    """Half of the budget is one defense, 8/255 another, whichever way they are written."""
    if sources == "the same":
        sources = {"apbench-2023", "ops-2023", "entf-2023", "bridgepure-2024"}
    asked = {"attack": attack, "defense": defense, "defense_options": options}
    compared = against(asked)
    assert {source for each in compared for source in each.published} == sources


@pytest.mark.parametrize(
    ("eps", "defense", "accuracy"),
    [
        ("4/255", "at8", 79.25),
        ("4/255", "at4", 84.37),
        ("16/255", "at4", 50.27),
        ("4/255", "at", None),
        ("4/255", "at_l2", None),
    ],
)
def test_a_preset_is_compared_under_other_budgets(
    eps: str, defense: str, accuracy: float | None, against
) -> None:
    given = {"attack": "entf", "attack_options": f"eps={eps}", "defense": defense}
    spans = [tuple(round(100 * value, 2) for value in each.span) for each in against(given)]
    assert spans == ([(accuracy, accuracy)] if accuracy else [])


@pytest.mark.parametrize(
    ("attack", "defense", "options", "span"),
    [
        ("ops", "standard", "", (13.67, 36.55)),
        ("ops", "iss", "mode=gray", (19.88, 42.44)),
        ("tap", "standard", "", (6.27, 9.51)),
        ("em", "standard", "", (19.58, 23.79)),
        ("cuda", "standard", "", (18.48, 23.25)),
    ],
)
def test_where_sources_disagree_ours_is_held_against_their_range(
    attack: str, defense: str, options: str, span: tuple[float, float], against
) -> None:
    (one,) = against({"attack": attack, "defense": defense, "defense_options": options})
    assert tuple(round(100 * value, 2) for value in one.span) == span


def test_sources_and_differences_by_hand(against):
    (one,) = against({"test_acc": 0.2, "defense": "iss"})
    assert dict(one.published) == {
        "apbench-2023": (pytest.approx(0.8072),),
        "iss-2023": (pytest.approx(0.815),),
        "ueraser-2023": (pytest.approx(0.7805),),
    }
    assert one.span == (pytest.approx(0.7805), pytest.approx(0.815))
    assert one.outside == pytest.approx(0.2 - 0.7805)
    assert one.difference("iss-2023") == pytest.approx(-0.615)
    assert not one.within_noise
    assert one.differs == ()


def test_inside_and_just_outside_the_span(against):
    inside, above = against(
        {"defense": "iss", "test_acc": 0.8}, {"defense": "ueraser", "test_acc": 0.9350}
    )
    assert inside.outside == 0
    assert above.outside == pytest.approx(0.0012)
    assert above.within_noise, "10,000 images leave half a point"


def test_options_make_a_different_method_unless_they_are_variants(against):
    assert against({"attack_options": "wise=class"}) == []
    assert against({"defense": "iss", "defense_options": "quality=50"}) == []
    gray, rem, usual = against(
        {"defense": "iss", "defense_options": "mode=gray", "test_acc": 0.93},
        {"attack": "rem", "attack_options": "train_steps=9,surrogate=resnet9[width=2]"},
        {"attack_options": "eps=8/255"},
    )
    assert gray.outside == 0
    assert rem.differs == (("rem's options", rem.ours.attack_options, ("the authors'",)),)
    assert usual.published["ueraser-2023"] == (0.2121, 0.2124)
    assert distinguishing("em", "eps=16/255,steps=3", known_meanings()) == {"eps=16/255"}


def test_each_table_of_a_source_is_compared_separately(against):
    (five,) = against({}, table="5")
    assert five.published["ueraser-2023"] == (0.2121,)
    (ours,) = against({"attack_options": "eps=16/255"}, table="6")
    assert ours.published == {"ueraser-2023": (0.2263,)}


def test_longer_training_is_compared_with_longer_training(against):
    max_ = {"defense": "ueraser_max"}
    exact = against(max_ | {"epochs": 200}, max_ | {"epochs": 300}, table="9")
    assert [c.published["ueraser-2023"] for c in exact] == [(0.9212,), (0.9524,)]
    longer = {"defense_options": "times_epochs=1.5", "protocol_epochs": 200, "epochs": 300}
    both = against(max_ | {"epochs": 200}, max_ | longer, table="9")
    assert [c.published["ueraser-2023"] for c in both] == [(0.9212,), (0.9524,)]
    assert both[1].ours.record()["epochs"] == 300
    quick = {"protocol": "quick", "arch": "resnet8"}
    scaled = against(max_ | quick | {"epochs": 12}, max_ | quick | {"epochs": 18}, table="9")
    assert [c.published["ueraser-2023"] for c in scaled] == [(0.9212,), (0.9524,)]


def test_the_networks_of_table_7(against):
    own, other = against({"arch": "densenet121"}, {"arch": "resnet8"})
    assert own.published == {
        **{"ueraser-2023": (0.3491,), "apbench-2023": (0.1389,), "ops-2023": (0.2372,)}
    }
    assert ("network", "resnet8", ("resnet18",)) in other.differs


def test_partial_poisons_were_not_published(against):
    assert against({"ratio": 0.5}, {"classes": "truck"}) == []


def test_differing_protocols_are_reported(against):
    small = {"dataset": "cifar10-small", "protocol": "quick", "epochs": 12, "n_train": 5000}
    found = against(small | {"arch": "resnet8"})
    (told,) = caveats(found)
    assert told.startswith("The protocols are not comparable. They differ in: data set (ours")
    for word in ("5,000, published 50,000", "resnet8", "ours 12, published 200", "quick"):
        assert word in told
    assert caveats(against({})) == []


def test_published_values_of_a_setting_are_listed_once(against):
    """Cells of several sources with different epochs, which were listed once per combination."""
    rows = [{"attack": "none", "defense": d, "epochs": 16} for d in ("standard", "ueraser", "iss")]
    (told,) = caveats(against(*rows))
    (epochs,) = re.findall(r"epochs \((.*?)\)", told)
    ours, _, theirs = epochs.partition(", published ")
    assert ours == "ours 16"
    listed = list(map(int, theirs.split(" or ")))
    assert len(listed) > 2
    assert listed == sorted(set(listed))


def test_published_sizes_are_sorted_as_numbers():
    assert _pair("5,000", ["73,257", "100,000", "50,000"]).endswith(
        "published 50,000 or 73,257 or 100,000"
    )


def test_data_sets_are_recognised_by_the_prefix_of_their_name(published):
    names = ["cifar10[n_train=5000]", "cifar100", "cifar10-small", "svhn", "synthetic"]
    found = [compared_dataset(name, published) for name in names]
    assert found == ["cifar10", "cifar100", "cifar10", "svhn", "cifar10"]


def test_rank_correlation_over_the_cells_of_a_source(against):
    rows = [
        {"attack": a, "defense": "ueraser", "test_acc": acc}
        for a, acc in (("em", 0.9), ("rem", 0.7), ("hypo", 0.6), ("lsp", 0.5))
    ]
    assert rank_correlations(against(*rows)) == {"ueraser-2023": (pytest.approx(1.0), 4)}


def test_a_clean_model_next_to_several_attacks_counts_once(against):
    rows = [
        {"attack": a, "defense": "ueraser", "test_acc": acc}
        for a, acc in (("em", 0.9), ("rem", 0.5), ("hypo", 0.6), ("lsp", 0.7))
    ]
    found = against(*rows)
    again = [replace(found[0], ours=replace(found[0].ours, beside=b)) for b in ("rem", "hypo")]
    assert rank_correlations([*found, *again]) == rank_correlations(found)
    other = replace(found[0].ours, settings=replace(found[0].ours.settings, arch="resnet50"))
    (_, n) = rank_correlations([*found, replace(found[0], ours=other)])["ueraser-2023"]
    assert n == 5, "another network's model is another one"


def test_several_seeds_keep_the_noise_of_the_test_images(against):
    runs = enumerate((0.245, 0.246, 0.247))
    seeds = [{"test_acc": acc, "seed": i, "n_test": 1000} for i, acc in runs]
    (found,) = against(*seeds)
    assert found.outside
    assert found.within_noise, "1,000 images leave more than two points"


def test_the_comparison_as_a_table_and_as_rows(against):
    found = against({"test_acc": 0.17, "seed": 0}, {"test_acc": 0.19, "seed": 1}, {"attack": "ar"})
    table = comparison_layout(found)
    assert str(table.columns[0]) == "ours"
    first = [str(cell) for cell in table.rows[0].cells]
    assert first[0] == "18.0 ± 1.4 (n=2)"
    assert first[-1] == "1.6 below (within noise)"
    assert table.rows[0].cells[-1].bold
    rows = comparison_records(found)
    em = [r["published_low"] for r in rows if r["attack"] == "em"]
    assert sorted(em) == [0.1958, 0.2078, 0.2105, 0.2121, 0.2379]


GOOD = "2,cifar10,resnet18,em,,standard,,,200,21.2,\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (",".join(PUBLISHED_COLUMNS[:-1]) + "\n", "no column note"),
        (",".join([*PUBLISHED_COLUMNS, "extra"]) + "\n", "unknown column extra"),
        (GOOD.replace("21.2", "212"), r"accuracy must lie in \[0, 100\], got '212'"),
        (GOOD.replace("21.2", "many"), "accuracy must be a finite number, got 'many'"),
        (GOOD.replace("200", "-1"), "epochs must be at least 1"),
        (GOOD.replace("em", ""), "attack must not be empty"),
        ("2,cifar10\n", "2 values where the first line names 11 columns"),
        ("\x00\n", "separated table|values where"),
    ],
)
def test_a_file_of_published_numbers_that_was_edited_badly(text: str, told: str, tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text(
        text if text.startswith("table,") else ",".join(PUBLISHED_COLUMNS) + "\n" + text
    )
    with pytest.raises(ValueError, match=told):
        read_published(path)


def test_an_own_file_may_say_what_is_second_hand(tmp_path: Path):
    path = tmp_path / "mine.csv"
    head = ",".join([*PUBLISHED_COLUMNS, "secondhand"])
    path.write_text(f"{head}\n{GOOD.strip()},\n{GOOD.strip()},a talk\n")
    own = [row for row in read_published(path) if row.source == "mine"]
    assert [row.secondhand for row in own] == [""]
    both = [row for row in read_published(path, secondhand=True) if row.source.startswith("mine")]
    assert [(row.source, row.secondhand) for row in both] == [("mine", ""), ("mine [S]", "a talk")]


def test_a_users_own_published_file_is_a_source(tmp_path: Path, cells):
    path = tmp_path / "mine.csv"
    path.write_text(",".join(PUBLISHED_COLUMNS) + "\n" + GOOD)
    (one,) = compare(ours_of(leaderboards(cells(PAPER)), {}), read_published(path))
    assert one.published["mine"] == (pytest.approx(0.212),)
    with pytest.raises(ValueError, match="no such file"):
        read_published(tmp_path / "other.csv")
