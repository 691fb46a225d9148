"""Mixtures: which images each attack gets, what is refused, and how a mixture is written."""

from __future__ import annotations

import pytest
import torch

from uebench.common.errors import UnknownNameError, UserError
from uebench.common.mixtures import attacks_mixed, mixture_spec
from uebench.common.spec import parse_spec
from uebench.methods.base import Facts
from uebench.methods.mixture import MixedPoison
from uebench.methods.registry import build, build_attack

LABELS = torch.cat([torch.full((n,), label) for label, n in enumerate((400, 90, 10))])


def mixture(spec: str) -> MixedPoison:
    method = build_attack(spec).method
    assert isinstance(method, MixedPoison)
    return method


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.5, 0.3), (0.2, 0.1), (0.333, 0.333)])
def test_shares_are_exact_and_the_same_in_each_class(first: float, second: float) -> None:
    owners = mixture(f"mix[em={first},lsp={second}]").owners(LABELS, 7)
    for part, share in enumerate((first, second)):
        own = owners == part
        assert abs(int(own.sum()) - share * 500) <= 1, "a share is one of all training images"
        for label in range(3):
            of_class = label == LABELS
            assert abs(int((own & of_class).sum()) - share * int(of_class.sum())) <= 1
    assert int((owners == -1).sum()) == 500 - round((first + second) * 500)


def test_the_draw_follows_the_seed_and_not_the_options() -> None:
    plain, wider = mixture("mix[em=0.5,lsp=0.3]"), mixture("mix[em=0.5,em.eps=16/255,lsp=0.3]")
    assert torch.equal(plain.owners(LABELS, 7), wider.owners(LABELS, 7))
    assert not torch.equal(plain.owners(LABELS, 7), plain.owners(LABELS, 8))


def test_the_order_of_the_attacks_means_nothing() -> None:
    assert mixture("mix[em=0.5,lsp=0.3]") == mixture("mix[lsp=0.3,em=0.5]")


def test_the_short_form_is_a_spec_with_the_options_of_each_attack() -> None:
    spec = mixture_spec("lsp:0.2, em[eps=16/255,rounds=5]:0.5")
    assert spec == "mix[lsp=0.2,em=0.5,em.eps=16/255,em.rounds=5]"
    assert attacks_mixed(spec) == ["lsp", "em"]
    assert str(mixture(spec)) == "mix[em=0.5,em.eps=16/255,em.rounds=5,lsp=0.2]", "0.2 is no 51/255"
    assert mixture(str(mixture(spec))) == mixture(spec)
    assert build("attack", parse_spec(spec)._replace(options=mixture(spec).options())) == mixture(
        spec
    ), "a worker builds it from its options"


@pytest.mark.parametrize(
    ("spec", "norm", "eps"),
    [
        ("mix[em=0.5,tap=0.5]", "linf", 8 / 255),
        ("mix[em=0.5,tap=0.4,tap.eps=4/255]", "linf", 8 / 255),
        ("mix[p5=0.5,lsp=0.5,lsp.eps=1]", "l2", 1),
        ("mix[em=0.5,lsp=0.5,lsp.eps=1]", "none", None),
        ("mix[em=0.5,cuda=0.5]", "none", None),
    ],
)
def test_the_budget_is_the_largest_if_the_attacks_share_a_norm(
    spec: str, norm: str, eps: float | None
) -> None:
    resolved = mixture(spec).resolve(Facts("synthetic", 3, (3, 8, 8), 1, "resnet8"))
    assert resolved.budget((3, 8, 8)) == (norm, eps)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("em:0.7,lsp:0.5", "em, lsp add up to 1.2, which is more than 1"),
        ("em:-0.5,lsp:0.5", "the share of em must be a number in (0, 1], got -0.5"),
        ("em:0,lsp:0.5", "the share of em must be a number in (0, 1], got 0"),
        ("em:half,lsp:0.5", "got half"),
        ("em:nan,lsp:0.5", "got nan"),
        ("em:0.3,em:0.3", "em is given twice"),
        ("em:0.3,em[eps=16/255]:0.3", "em is given twice"),
        ("em,lsp:0.5", "'em' of the mixture has no share"),
        ("em:,lsp:0.5", "'em:' of the mixture has no share"),
        ("em[eps=16/255],lsp:0.5", "has no share"),
        ("em:0.5", "needs the shares of two or more attacks"),
        ("", "needs the shares of two or more attacks"),
        ("none:0.5,em:0.5", "none cannot be mixed in"),
        ("mix:0.5,em:0.5", "mix cannot be mixed in"),
        ("em[epz=8/255]:0.5,lsp:0.5", "did you mean eps?"),
        ("em[eps=2]:0.5,lsp:0.5", "em: eps must be"),
    ],
)
def test_a_bad_mixture_is_refused_in_one_sentence(text: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        build_attack(mixture_spec(text))
    assert problem in str(error.value)


def test_other_names_are_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean lsp"):
        build_attack("mix[lspp=0.5,em=0.5]")
    with pytest.raises(UserError, match=r"lsp\.eps is set, but lsp has no share"):
        build_attack("mix[em=0.5,p5=0.5,lsp.eps=1]")
    with pytest.raises(UserError, match="poisons none of the 500 training images"):
        mixture("mix[em=0.5,lsp=0.0001]").owners(LABELS, 0)
