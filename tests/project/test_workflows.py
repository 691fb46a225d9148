"""The workflows for GitHub run the make targets of .ci/run, on every Python that is supported."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def jobs(workflow: str) -> list[dict[str, Any]]:
    text = (ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text()
    return list(yaml.safe_load(text)["jobs"].values())


def make_targets(workflow: str) -> set[str]:
    steps = [step.get("run", "") for job in jobs(workflow) for step in job["steps"]]
    return set(re.findall(r"^make ([\w-]+)", "\n".join(steps), re.MULTILINE))


def test_workflows_run_the_make_targets_of_ci() -> None:
    ours = set(re.findall(r"^step ([\w-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert make_targets("checks") == ours - {"test-slow"}
    assert make_targets("nightly") == {"test-all"}, "the fast tests and the slow ones"
    assert make_targets("site") == {"site"}
    defined = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    workflows = ("checks", "nightly", "site")
    assert set().union(*map(make_targets, workflows)) <= set(defined)


def test_only_the_job_that_publishes_the_site_may_write() -> None:
    for workflow in (ROOT / ".github" / "workflows").iterdir():
        assert yaml.safe_load(workflow.read_text())["permissions"] == {}, workflow.name
        for job in jobs(workflow.stem):
            writes = {name for name, level in job["permissions"].items() if level == "write"}
            uses = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
            publishes = "actions/deploy-pages" in uses
            assert writes == ({"pages", "id-token"} if publishes else set())
            assert not (publishes and "actions/checkout" in uses), "it runs none of our code"


def test_workflows_test_every_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    supported = [c.rpartition(" ")[2] for c in project["classifiers"] if c.startswith(prefix)]
    for workflow in ("checks", "nightly"):
        (tested,) = (
            job["strategy"]["matrix"]["python"] for job in jobs(workflow) if "strategy" in job
        )
        assert tested == supported
    assert project["requires-python"] == f">={supported[0]}"
