"""The slurm executor on a real cluster of one node without accounting (Debian's packages)."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from uebench.execute.choose import build_executor
from uebench.store.store import Store

from .driver import Driver, records
from .slurm_cluster import missing, slurm_cluster

pytest.importorskip("submitit", reason="needs submitit: pip install 'uebench[slurm]'")
if missing():
    pytest.skip(
        f"needs {', '.join(missing())}: apt-get install slurmctld slurmd slurm-client munge",
        allow_module_level=True,
    )
SLURM = ["--executor", "slurm[hours=0.5,poll_s=0.5]"]
MATRIX = ["--attacks", "lsp", "--defenses", "standard,waits"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def queue(environment: dict[str, str]) -> list[str]:
    """Return the numbers of the jobs that wait or run."""
    listing = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return listing.stdout.split()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_and_killed_run_gives_the_same_table(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    first = Driver(tmp_path, store.root, *MATRIX, *SLURM, **cluster)
    try:
        first.new_pid()
        first.until(lambda: len(list((store.base / "cell").glob("*"))) == 1)
        assert queue(cluster), "a job waits for the file `go`"
        assert first.interrupt() == 130
    finally:
        first.stop()
    assert "1 of 2 cells are finished; run the same command again" in first.stderr_text()
    assert "[1/3] craft lsp" in first.stderr_text(), "progress comes back"
    assert queue(cluster) == [], "Ctrl-C leaves no job behind"
    assert list((store.root / "notes").iterdir()) == []
    (tmp_path / "go").unlink()

    second = Driver(tmp_path, store.root, *MATRIX, *SLURM, **cluster)
    try:
        pid = second.new_pid()
        os.kill(pid, signal.SIGKILL)
        second.new_pid(but={pid})
        (tmp_path / "go").touch()
        assert second.ended() == 0, second.stderr_text()
    finally:
        second.stop()
    assert "2 cells, 1 already computed" in second.stderr_text()
    assert "starting it again" in second.stderr_text()

    on_slurm = records(store, attacks="lsp", defenses="standard")
    here = records(Store(tmp_path / "here"), attacks="lsp", defenses="standard")
    assert on_slurm == here


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_refusal_of_slurm_is_one_sentence(cluster: dict[str, str], tmp_path: Path) -> None:
    options = ["--executor", "slurm[partition=nowhere]"]
    driver = Driver(tmp_path, tmp_path / "store", *MATRIX, *options, **cluster)
    try:
        assert driver.ended() == 2
    finally:
        driver.stop()
    assert "sbatch refuses the job" in driver.stderr_text()
    assert "change partition=nowhere of --executor slurm" in " ".join(driver.stderr_text().split())
    assert "nvalid partition" in driver.stderr_text()
    assert "Traceback" not in driver.stderr_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_cells_share_a_job_with_its_setup_and_any_option_of_sbatch(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    marks = tmp_path / "marks"
    marks.mkdir()
    setup = f"touch {marks}/$SLURM_JOB_ID"
    options = f"hours=0.5,poll_s=0.5,cells_per_job=2,setup={setup},sbatch=--comment=mine --nice=3"
    matrix = ["--attacks", "none", "--defenses", "standard,iss"]
    driver = Driver(tmp_path, store.root, *matrix, "--executor", f"slurm[{options}]", **cluster)
    try:
        assert driver.ended() == 0, driver.stderr_text()
    finally:
        driver.stop()
    assert len(list(marks.iterdir())) == 1, "one job for two cells, and it ran the setup"
    on_slurm = records(store, attacks="none", defenses="standard,iss")
    here = records(Store(tmp_path / "here"), attacks="none", defenses="standard,iss")
    assert on_slurm == here


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("sbatch=--gress=gpu:1", "unrecognized option '--gress=gpu:1'"),
        ("sbatch=--nodelist=nowhere", "change sbatch=--nodelist=nowhere"),
        ("constraint=fast", "change constraint=fast"),
    ],
)
def test_what_sbatch_refuses_names_the_option_that_brought_it(
    option: str, answer: str, cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="sbatch refuses the job") as refused:
        build_executor(f"slurm[{option}]").check()
    assert answer in str(refused.value)
    build_executor("slurm[sbatch=--comment=ok]").check()


@pytest.mark.parametrize(
    "words",
    [
        "allocation failure: Unable to contact slurm controller (connect failure)",
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: fatal: Could not establish a configuration source",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    ],
)
def test_a_cluster_that_does_not_answer_is_no_options_fault(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"sbatch": f"echo '{words}' >&2; exit 1", "squeue": "", "srun": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ValueError, match=r"^sbatch does not reach the cluster: ") as refused:
        build_executor("slurm[gpus=1]").check()
    last = words.splitlines()[-1].removeprefix("sbatch: fatal: ").removeprefix("sbatch: error: ")
    assert f"{last}; check with `scontrol ping`" in str(refused.value)
    assert "gpus=1" not in str(refused.value)


def test_an_sbatch_that_hangs_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "squeue", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 20\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("uebench.execute.slurm.SBATCH_S", 0.2)
    with pytest.raises(ValueError, match=r"^sbatch has not answered in 0.2 s; check with"):
        build_executor("slurm").check()
