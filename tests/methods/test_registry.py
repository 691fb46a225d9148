"""Names, options, plug-ins: what is accepted, and what is said about the rest."""

import importlib
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from uebench import Attack, Facts, Option, attack, defense
from uebench.cells.cell import source_of
from uebench.common.errors import MethodError, UserError
from uebench.methods import registry
from uebench.methods.meanings import known_meanings
from uebench.methods.registry import build_attack, build_defense, find, load_file, methods

PLUGIN = '''
import torch
from uebench import Attack, attack

@attack("{name}", title="Plugged", source="a test")
class Plugged(Attack):
    """Adds nothing."""

    def perturb(self, data, run):
        """Return zeros."""
        return torch.zeros(data.images.shape)
'''


def test_the_contract_names_are_there() -> None:
    assert {"none", "em", "lsp", "ar"} <= set(methods("attack"))
    wanted = {"standard", "ueraser", "ueraser_lite", "ueraser_max", "iss", "at"}
    assert wanted <= set(methods("defense"))


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_every_option_says_what_it_means(kind: registry.Kind) -> None:
    for name, cls in methods(kind).items():
        assert cls.info.title, name
        assert cls.info.source, name
        for key, info in cls.model_fields.items():
            assert info.description, f"{name}.{key} has no docstring"


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_the_number_that_auto_means_is_the_one_that_is_said(kind: registry.Kind) -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 200, "resnet18")
    n_compared = 0
    for name, cls in methods(kind).items():
        resolved = registry.build(kind, name).resolve(facts)
        for option, info in cls.model_fields.items():
            said = re.search(r"auto:\s([\d.,/e-]+)[ .,]", f"{info.description} ")
            value = getattr(resolved, option)
            in_l2 = option == "eps" and getattr(resolved, "norm", "") == "l2"
            if said is None or value == 0 or in_l2:
                continue  # in words, not used under these options, or the number for linf
            number = said.group(1).rstrip(".,").replace(",", "")
            assert value == pytest.approx(float(Fraction(number))), f"{name}.{option}"
            n_compared += 1
    assert n_compared > {"attack": 25, "defense": 0}[kind]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean ueraser_lite"):
        find("defense", "ueraser_light")


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(ValueError, match="eps must be") as error:
        build_attack("em[eps=8,rouns=3,steps=none]")
    text = str(error.value)
    assert "eps must be a number in (0, 1] or auto, got 8; divide by 255" in text
    assert "no option rouns (did you mean rounds?)" in text
    assert "steps must be a whole number in [1, 10000] or auto, got none" in text


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("iss[quality=0]", "quality must be a whole number in [1, 95], got 0"),
        ("iss[mode=png]", "mode must be one of jpeg"),
        ("ueraser[repeats=0]", "repeats must be a whole number in [1, 100], got 0"),
        ("ueraser[adversarial_epochs=-1]", "adversarial_epochs must be"),
        ("ueraser[policy=p+x]", "p, c, and t or a"),
        ("standard[eps=1]", "no option eps; it has times_epochs"),
        ("at[radius=nan]", "radius"),
    ],
)
def test_bad_defenses(spec: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        build_defense(spec)


def test_an_option_that_the_published_method_lacks_has_no_published_value() -> None:
    @defense("lite", title="Lite", source="a test")
    class Lite(find("defense", "iss")):  # type: ignore[misc]
        """ISS with an option more."""

        published_as: ClassVar[str] = "iss"
        quality: int = 30
        """Another default."""
        extra: int = 3
        """An option that ISS does not have."""

    assert known_meanings()["lite"].preset == {"quality=30"}


def test_fractions_and_overrides() -> None:
    made = build_attack("em[eps=16/255]", {"rounds": "7", "eps": "1/255"})
    assert made.method.eps == 16 / 255  # the spec itself wins
    assert made.options()["rounds"] == 7
    assert made.changed_text == "eps=16/255,rounds=7"
    assert str(made) == "em[eps=16/255,rounds=7]"


def test_a_plugin_file_is_loaded_once(tmp_path: Path) -> None:
    path = tmp_path / "plugged.py"
    path.write_text(PLUGIN.format(name="plugged"))
    load_file(path)
    load_file(path)
    assert find("attack", "plugged").info.origin == "file plugged.py"


def test_the_file_of_an_installed_plugin_is_not_loaded_twice(tmp_path: Path) -> None:
    path = tmp_path / "installed_one.py"
    path.write_text(PLUGIN.format(name="installed_one"))
    with pytest.MonkeyPatch.context() as patch, registry._loading("entry point installed_one"):
        patch.syspath_prepend(str(tmp_path))
        importlib.import_module("installed_one")
    load_file(path)
    assert find("attack", "installed_one").info.origin == "entry point installed_one"
    assert path not in registry.plugin_files(), "workers have the entry point"


def test_an_installed_plugin_that_is_refused_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_broken", [])
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, why in (("refused_one", PLUGIN.format(name="em")), ("broken_one", "1 / 0")):
        (tmp_path / f"{name}.py").write_text(why)
        with registry._loading(f"entry point {name}"):
            importlib.import_module(name)
    with pytest.raises(
        UserError, match="refused_one is refused: the attack em is built in"
    ) as told:
        find("attack", "refused_one")
    assert not isinstance(told.value, MethodError)
    with pytest.raises(MethodError, match="broken_one breaks at import: ZeroDivisionError"):
        find("attack", "broken_one")


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_noise").mkdir()
    (tmp_path / "my_noise/uebench_my_noise.py").touch()
    for told in ("`pip install -e my_noise`", "--plugin my_noise/uebench_my_noise.py"):
        with pytest.raises(KeyError, match=re.escape(told)):
            find("attack", "my_noise")


def test_a_file_without_a_method_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("import uebench\n")
    with pytest.raises(ValueError, match=r"empty.py: adds no method; mark a class with @uebench"):
        load_file(tmp_path / "empty.py")


def test_an_edited_plugin_is_another_recipe(tmp_path: Path) -> None:
    sources = []
    for i in range(2):
        path = tmp_path / f"edited_{i}.py"
        path.write_text(PLUGIN.format(name=f"edited_{i}") + f"# edit {i}")
        load_file(path)
        sources.append(source_of(build_attack(f"edited_{i}").method))
    assert sources[0]["source"] != sources[1]["source"]
    assert source_of(build_attack("em").method) == {}


def test_a_broken_plugin_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(PLUGIN.format(name="half") + "\nraise RuntimeError('no')\n")
    with pytest.raises(ValueError, match="RuntimeError: no"):
        load_file(path)
    assert "half" not in methods("attack")


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thief.py"
    path.write_text(PLUGIN.format(name="em"))
    sentence = r"the attack em is built in; choose another name \(thief.py, line \d"
    with pytest.raises(ValueError, match=sentence):
        load_file(path)
    assert find("attack", "em").info.title == "EM"


def test_an_attack_without_perturb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text(
        "import uebench\n\n"
        "@uebench.attack('lazy', title='Lazy', source='a test')\n"
        "class Lazy(uebench.Attack):\n    eps: float = 0.1\n"
    )
    with pytest.raises(UserError, match=r"lazy.py: the attack Lazy has no `perturb`; write it$"):
        load_file(path)
    assert "lazy" not in methods("attack")


def test_a_method_of_another_kind_is_named() -> None:
    with pytest.raises(UserError, match=r"^ueraser is a defense, not an attack$"):
        find("attack", "ueraser")
    with pytest.raises(UserError, match=r"^lsp is an attack, not a defense$"):
        find("defense", "lsp")


def test_a_session_may_register_its_own_twice() -> None:
    for _ in range(2):

        @attack("mine", title="Mine", source="a test")
        class Mine(Attack):
            """Adds nothing."""

    assert find("attack", "mine") is Mine
    with pytest.raises(ValueError, match="snake_case"):
        attack("Not A Name", title="", source="")(Mine)


@pytest.mark.parametrize("spec", ["rem[adv_radius=4]", "em[eps=16]", "hypo[eps=8]"])
def test_pixel_levels_instead_of_a_fraction_get_a_hint(spec: str) -> None:
    facts = Facts("test", 10, (3, 32, 32), 1, "resnet8")
    with pytest.raises(ValueError, match="divide by 255"):
        build_attack(spec).resolve(facts)


def test_an_option_that_was_added_later_is_in_a_recipe_only_if_it_is_changed() -> None:
    class Grown(Attack):
        """An attack that had `old` when results were stored, and was given `new` afterwards."""

        old: int = 1
        new: Annotated[int, Option(later=True)] = 2

    kept = Attack().options()
    assert Grown().recipe() == {**kept, "old": 1}
    assert Grown(old=5, new=3).recipe() == {**kept, "old": 5, "new": 3}
    assert Grown().options()["new"] == 2, "records and pages still say it"


def test_a_spec_writes_pixel_budgets_alone_as_fractions() -> None:
    assert str(build_attack("em[lr=0.2,eps=51/255]").method) == "em[eps=51/255,lr=0.2]"
    assert str(build_defense("cutmix[probability=0.6]").method) == "cutmix[probability=0.6]"
