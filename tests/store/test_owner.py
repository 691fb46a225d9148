"""A folder's signature tells whether the process that signed it is still running."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from uebench.store import owner


def signed_by_another(folder: Path) -> None:
    """Let a process sign a folder that has ended when this returns."""
    program = "import sys; from pathlib import Path; from uebench.store.owner import sign; "
    program += "sign(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)


def test_a_process_is_known_to_live_and_to_be_dead(tmp_path: Path) -> None:
    assert owner.is_running(tmp_path) is None, "nobody has signed"
    owner.sign(tmp_path)
    assert owner.is_running(tmp_path) is True
    signed_by_another(tmp_path)
    assert owner.is_running(tmp_path) is False


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux when a process began")
def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    owner.sign(tmp_path)
    path = tmp_path / owner.SIGNATURE
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "began": told["began"] - 1}))
    assert owner.is_running(tmp_path) is False


@pytest.mark.parametrize("place", [["another", "", ""], None])
def test_processes_of_other_machines_are_unknown(place: object, tmp_path: Path) -> None:
    signed_by_another(tmp_path)
    path = tmp_path / owner.SIGNATURE
    path.write_text(json.dumps({**json.loads(path.read_text()), "place": place}))
    assert owner.is_running(tmp_path) is None
    path.write_text("{")
    assert owner.is_running(tmp_path) is None
