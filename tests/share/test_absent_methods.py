"""Results of a plug-in that is not loaded: what is still tested, and how to get it is said."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import uebench
from tests.share.conftest import OPTIONS
from uebench.cli import main
from uebench.methods import registry
from uebench.share.check_cells import how_to_get

PLUGIN = """
import uebench


@uebench.attack("veil", title="Veil", source="a test")
class Veil(uebench.Attack):
    \"\"\"Makes images brighter.\"\"\"

    def perturb(self, data, run):
        \"\"\"Return four levels.\"\"\"
        return 0 * data.pixels() + 4 / 255
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two attacks, one of them of a plug-in that is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    Path("veil.py").write_text(PLUGIN)
    before = {kind: dict(classes) for kind, classes in registry._methods.items()}
    registry.load_file(Path("veil.py"))
    uebench.run("lsp,veil", "standard", out="made", **OPTIONS)
    monkeypatch.setattr(registry, "_methods", before)
    monkeypatch.setattr(registry, "_files", [])
    return tmp_path / "made"


def test_run_json_says_where_a_method_came_from(made: Path) -> None:
    methods = json.loads((made / "run.json").read_text())["methods"]
    assert methods["veil"]["origin"] == "file veil.py"
    assert "origin" not in methods["lsp"]


def test_validate_says_how_to_get_a_plugin_and_tests_the_others(made: Path) -> None:
    result = call("validate", "made")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert "veil is not installed here: it came from the file veil.py, so add --plugin FILE" in told
    assert told.count("its attack cannot be planned here") == 1, "LSP's budget can be tested"
    run = json.loads((made / "run.json").read_text())
    (key,) = (k for k, poison in run["poisons"].items() if poison["recipe"]["attack"] == "lsp")
    run["poisons"][key]["budget"]["eps"] *= 2
    (made / "run.json").write_text(json.dumps(run))
    assert "its budget is" in call("validate", "made").stdout


@pytest.mark.parametrize("verb", ["validate", "publish", "merge"])
def test_results_are_shared_with_the_plugin(made: Path, verb: str) -> None:
    more = {"validate": [], "publish": ["bundle"], "merge": ["--out", "merged"]}[verb]
    result = call(verb, "made", *more, "--plugin", "veil.py")
    assert result.exit_code == 0, result.output
    assert "veil is not installed" not in result.output
    assert "cannot be planned" not in result.output


def test_verify_says_how_to_get_a_plugin(made: Path) -> None:
    result = call("verify", "made", "--sample", "0")
    assert result.exit_code == 2
    assert "veil is not installed here: it came from the file veil.py" in result.stderr
    assert call("verify", "made", "--sample", "0", "--plugin", "veil.py").exit_code == 0


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (
            "entry point veil of veils 1.0",
            "the entry point veil of veils 1.0, so install",
        ),
        ("session", "it was defined in a Python session, so add --plugin FILE with its code"),
        ("", "install its package, or add --plugin FILE"),
    ],
)
def test_every_origin_has_its_remedy(origin: str, told: str) -> None:
    assert told in how_to_get({"veil": origin})


@pytest.mark.parametrize("change", [{"attacks": 5}, {"matrices": [5]}, {"defenses": [5]}])
def test_a_damaged_configuration_is_reported_with_or_without_the_plugin(
    made: Path, change: dict[str, object]
) -> None:
    run = json.loads((made / "run.json").read_text())
    run["config"] |= change
    (made / "run.json").write_text(json.dumps(run))
    for plugin in ([], ["--plugin", "veil.py"]):
        result = call("validate", "made", *plugin)
        assert "unexpected" not in result.output
        assert "run.json" in result.stdout
