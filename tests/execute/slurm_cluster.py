"""A Slurm cluster of one node on this machine, for tests: munge, slurmctld and slurmd on loopback.

It has no accounting, as many real ones. All files lie in a folder that is given; nothing of the
system's own Slurm is touched. By hand: `python tests/execute/slurm_cluster.py FOLDER`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
SchedulerParameters=sched_interval=1,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> list[str]:
    """Return the programs that are not installed (Debian: slurmctld slurmd slurm-client munge)."""
    paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=paths) is None]


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run a cluster; yield the environment in which `sbatch` finds it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    conf = folder / "slurm.conf"
    ports = {"port": _free_port(), "node_port": _free_port()}
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    conf.write_text(CONFIGURATION.format(folder=folder, host=host, user=user, **ports))
    environment = {
        "SLURM_CONF": str(conf),
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
    }
    whole = {**os.environ, **environment}
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket", "--force", "--foreground"]
    munge += [f"--{what}-file={folder}/munge.{what}" for what in ("pid", "log", "seed")]
    commands = [["munged", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.out").open("wb")
            with log:
                daemons.append(subprocess.Popen(command, env=whole, stdout=log, stderr=log))
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), "munged does not start", folder)
        _wait(lambda: _idle(whole), "the node does not come up", folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(15)
            daemon.kill()
            daemon.wait()


def _idle(environment: dict[str, str]) -> bool:
    """Return whether the node is ready for jobs."""
    command = ["sinfo", "--noheader", "--format=%T"]
    state = subprocess.run(command, env=environment, capture_output=True, text=True)
    return state.stdout.strip() == "idle"


def _wait(true, why: str, folder: Path) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            logs = "\n".join(p.read_text(errors="replace")[-800:] for p in folder.glob("*.log"))
            raise RuntimeError(f"{why}: {logs}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with slurm_cluster(Path(sys.argv[1]).resolve()) as environment:
        print(f"export SLURM_CONF={environment['SLURM_CONF']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
