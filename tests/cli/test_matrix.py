"""One option, one name: on the command line, in Python and in a YAML file."""

import inspect
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import uebench
from uebench.cells.config import HOW, Config, make_config
from uebench.cli import main
from uebench.cli.matrix import matrix_fields
from uebench.cli.run import run_verb
from uebench.suite.run import prepare

TINY = "synthetic[n_train=20,n_test=10,n_classes=2,size=16]"
PRINTED = {"json", "compare", "debug"}
"""Flags that choose what is printed; `uebench.run` returns the table, and Python the traceback."""


def call(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def test_every_flag_of_run_has_the_same_name_in_python_and_in_yaml() -> None:
    options = [p for p in run_verb.params if isinstance(p, click.Option)]
    flags = {p.opts[0].removeprefix("--").replace("-", "_") for p in options}
    fields = set(Config.model_fields)
    python = {*inspect.signature(uebench.run).parameters, *fields}
    assert flags - python == PRINTED
    assert flags - {*fields, *HOW} == {"debug"}
    assert set(HOW) <= flags, "YAML has no flag that the command line lacks"


def test_a_yaml_file_sets_every_flag_and_the_command_line_replaces_it(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        'from uebench import Attack, attack\n\n\n@attack("from_yaml", title="t", source="s")\n'
        'class FromYaml(Attack):\n    """A plug-in."""\n\n'
        "    def perturb(self, data, run):\n        return data.images.float() * 0\n"
    )
    config = tmp_path / "c.yaml"
    config.write_text(
        f"dataset: {TINY}\nattacks: [from_yaml]\ndefenses: [standard]\narch: resnet9[width=2]\n"
        f"epochs: 3\nset: {{protocol.batch_size: 8}}\nout: {tmp_path / 'out'}\nplugin: {plugin}\n"
        "jobs: 1\njson: true\nquiet: true\ntime_limit: 5\nexecutor: local\ndevice: cpu\n"
    )
    result = call("run", str(config), "--epochs", "2")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["settings"]["epochs"] == 2
    assert result.stderr == "", "quiet"
    row = uebench.report.read_cells(tmp_path / "out").iloc[0]
    assert (row["attack"], row["n_poisoned"]) == ("from_yaml", 0)
    assert call("table", str(config)).exit_code == 0, "the other verbs read the same file"
    assert call("run", str(config), "--dry-run").stdout.count("from_yaml") == 1


def test_detectors_in_a_yaml_file_are_a_text_or_a_list(tmp_path: Path) -> None:
    data = "synthetic[n_train=300,n_test=20,n_classes=2,size=16]"
    for detectors in ("[edge_pixels, noise]", "edge_pixels,noise"):
        (tmp_path / "c.yaml").write_text(
            f"dataset: {data}\nattacks: none\ndetect: true\ndetectors: {detectors}\n"
        )
        planned = call("run", str(tmp_path / "c.yaml"), "--dry-run")
        assert planned.exit_code == 0, planned.output


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("jobs: many", "Invalid value for '--jobs': 'many' is not a valid integer range"),
        ("executor: clowd", "unknown executor"),
        ("outt: x", "no field outt"),
        ("plugin: gone.py", "gone.py"),
    ],
)
def test_a_bad_flag_in_a_yaml_file_gets_a_sentence(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"dataset: {TINY}\n{line}\n")
    result = call("run", str(tmp_path / "c.yaml"), "--dry-run")
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split()), result.stderr


def test_python_takes_minutes_as_the_flags_do_and_plans_without_computing() -> None:
    asked: dict[str, Any] = {"attacks": "none,lsp", "defenses": "standard", "dataset": TINY}
    planned = uebench.run(**asked, epochs=2, set={"protocol.batch_size": 8}, dry_run=True)
    assert list(planned["status"]) == ["skipped", "skipped"]
    assert list(planned["epochs"]) == [2, 2]
    with pytest.raises(ValueError, match="time_limit is given in minutes and in seconds"):
        uebench.run(**asked, time_limit=1, time_limit_s=60)
    with pytest.raises(ValueError, match=r"the time limit must be a number above 0 s, got -60"):
        uebench.run(**asked, time_limit=-1)


def test_flags_replace_the_short_forms_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("epochs: 9\nset: {protocol.lr: 1}\nmatrices: [{epochs: 8}, {}]\n")
    names = ("attacks", "defenses", "arch", "protocol", "seeds", "poison_seeds", "ratio", "classes")
    flags = dict.fromkeys((*names, "craft_on", "dataset"))
    config = make_config(
        matrix_fields(str(path), {**flags, "sets": ("protocol.lr=2",), "epochs": 3})
    )
    assert config.protocol_options == {"epochs": 3, "lr": "2"}
    assert all("epochs" not in part.get("protocol_options", {}) for part in config.matrices)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seeds": "3-4"},
        {"set": {"em.steps": 4}},
        {"defenses": "iss"},
        {"attacks": "lsp", "set": {"lsp.patch": 4}},
        {"arch": "resnet9", "epochs": 2},
        {"protocol": "sprint"},
    ],
    ids=str,
)
def test_python_and_the_command_line_mean_the_same_matrix(given: dict[str, Any]) -> None:
    words = []
    for name, value in given.items():
        values = [f"{k}={v}" for k, v in value.items()] if name == "set" else [str(value)]
        words += [word for each in values for word in (f"--{name}", each)]
    config = make_config(matrix_fields(None, run_verb.make_context("run", words).params))
    by_flags = [cell.key for cell in prepare(config, outline=True).cells]
    assert list(uebench.run(**given, dry_run=True)["key"]) == by_flags


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ("0-2", [0, 1, 2]),
        ("7, 0-1", [7, 0, 1]),
        (["3-3", 9], [3, 9]),
        (range(2), [0, 1]),
        (np.arange(3), [0, 1, 2]),
        (np.int64(4), [4]),
    ],
    ids=str,
)
def test_seeds_may_be_ranges_and_numbers_of_numpy(seeds: Any, expected: list[int]) -> None:
    config = make_config({"seeds": seeds, "poison_seeds": seeds})
    assert config.seeds == config.poison_seeds == expected


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ("2-0", "the range 2-0 must rise"),
        ("0-200000", "at most 100,000 seeds; write it like 0-2"),
        ("0-2,1", "1 is named more than once"),
        ("0-", "the range 0- has no whole numbers as its ends; write it like 0-2"),
        ("0-x", "the range 0-x has no whole numbers as its ends; write it like 0-2"),
        ("-1", "each a whole number in [0, 2147483648), got -1"),
    ],
)
def test_a_range_that_is_none_gets_a_sentence(seeds: str, words: str) -> None:
    result = call("run", "--seeds", seeds, "--dry-run")
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_mixture_is_the_same_attack_on_the_command_line_in_yaml_and_in_python(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"attacks: [none]\nmix: lsp:0.5,p5:0.25\ndataset: {TINY}\n")
    from_yaml = make_config(matrix_fields(str(file), dict.fromkeys(("mix", "dataset", "sets"), ())))
    python = uebench.run(attacks="none", mix="lsp:0.5,p5:0.25", dataset=TINY, dry_run=True)
    assert from_yaml.attacks == ["none", "mix[lsp=0.5,p5=0.25]"]
    assert set(python["attack"]) == {"none", "mix"}
    both = ("em:0.5,lsp:0.5", "em:0.2,lsp:0.2")
    added = make_config(matrix_fields(None, {"mix": both, "dataset": (), "sets": ()}))
    assert added.attacks[-2:] == ["mix[em=0.5,lsp=0.5]", "mix[em=0.2,lsp=0.2]"]
    assert len(added.attacks) > 2, "it is added to those of the configuration"


@pytest.mark.parametrize(
    ("mixture", "problem"),
    [
        ("em:0.7,lsp:0.5", "add up to 1.2"),
        ("emm:0.5,lsp:0.5", "did you mean em"),
        ("em", "no share"),
    ],
)
def test_a_bad_mixture_ends_with_a_sentence(mixture: str, problem: str) -> None:
    result = call("run", "--mix", mixture, "--dry-run")
    assert result.exit_code == 2
    assert problem in result.output


def test_the_help_names_the_attacks_and_defenses_that_flags_alone_run() -> None:
    attacks, defenses = (",".join(Config.model_fields[n].default) for n in ("attacks", "defenses"))
    shown = " ".join(call("run", "--help").stdout.split())
    assert f"attacks default to {attacks} and defenses to {defenses}." in shown
