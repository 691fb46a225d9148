"""Executors by name and options: every mistake is one sentence, and nothing is written."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from uebench.cli import main
from uebench.execute.base import ExecutorError
from uebench.execute.choose import build_executor
from uebench.execute.devices import DeviceError
from uebench.execute.ray import RayCluster
from uebench.execute.sbatch import sbatch_words
from uebench.execute.slurm import Slurm


def test_options_are_read_from_the_spec() -> None:
    slurm = build_executor("slurm[partition=gpu,gpus=2,memory-gb=8,hours=0.5]")
    assert isinstance(slurm, Slurm)
    assert (slurm.partition, slurm.gpus, slurm.memory_gb, slurm.hours) == ("gpu", 2, 8, 0.5)
    ray = build_executor("ray[address=10.0.0.1:6379,gpus=0.25]")
    assert isinstance(ray, RayCluster)
    assert (ray.address, ray.gpus) == ("10.0.0.1:6379", 0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pigeon", "unknown executor 'pigeon'; known: local, ray, slurm"),
        ("slrum", "did you mean slurm?"),
        ("ray[gpu=1]", "no option gpu (did you mean gpus?); it has"),
        ("ray[gpus=-1]", "gpus must be a number in [0, inf)"),
        ("slurm[gpus=0.5,hours=0]", "hours must be a number in (0, inf), got 0"),
        ("local[memory_gb=x]", "memory_gb must be"),
        ("ray[gpus", "lacks its closing ]"),
    ],
)
def test_mistakes_are_usage_errors(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run", "--executor", text, "--dataset", "synthetic"])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_device_must_go_with_the_gpus_of_a_cell() -> None:
    assert build_executor("slurm[gpus=1]").devices("auto") == ["cuda:0"]
    assert build_executor("slurm").devices("auto") == ["cpu"]
    assert build_executor("ray[gpus=0.25]").devices("cuda") == ["cuda:0"]
    with pytest.raises(DeviceError, match="--device cuda contradicts gpus=0"):
        build_executor("slurm").devices("cuda")
    with pytest.raises(DeviceError, match="--device cuda:1 contradicts gpus=1"):
        build_executor("slurm[gpus=1]").devices("cuda:1")


def test_missing_slurm_commands_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(ExecutorError, match="needs sbatch and squeue and srun, which this machine"):
        build_executor("slurm").check()


def test_every_executor_is_listed_and_shown() -> None:
    runner = CliRunner()
    listed = runner.invoke(main, ["list", "executors"]).stdout
    for name in ("local", "ray", "slurm"):
        assert name in listed
        assert "memory_gb" in runner.invoke(main, ["show", "executor", name]).stdout


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("sbatch=gres=gpu:1", "'gres=gpu:1' is not an option of sbatch; write --NAME=VALUE"),
        ("sbatch=--partition=a", "--partition is the option partition of the executor"),
        ("sbatch=--mem=4G", "--mem is the option memory_gb of the executor"),
        ("sbatch=--array=1-9", "--array is set by uebench"),
        ("sbatch=--comment='x", "No closing quotation"),
        ("cells_per_job=0", "cells_per_job must be a whole number in [1, 1024], got 0"),
    ],
)
def test_options_that_slurm_jobs_cannot_have_are_refused(text: str, answer: str) -> None:
    with pytest.raises(ValueError, match=re.escape(answer)):
        build_executor(f"slurm[{text}]")


def test_cores_and_memory_grow_with_the_cells_of_a_job_and_brackets_protect_commas() -> None:
    text = "slurm[cpus=2,memory_gb=3,gpus=1,cells_per_job=4,sbatch=[--exclude=a,b --exclusive]]"
    slurm = build_executor(text)
    assert isinstance(slurm, Slurm)
    assert slurm.parameters() == {"cpus-per-task": 8, "mem": "12000M", "gpus-per-node": 1}
    assert sbatch_words(slurm.sbatch) == ["--exclude=a,b", "--exclusive"]
