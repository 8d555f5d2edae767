"""A real Slurm over emulated machines: munge, one controller, one daemon a machine, all private."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from distrain.bench.machines import Machines

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "srun")
PLUGIN = Path("/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so")  # slurmd loads it by this name
_SECONDS = 30.0

# cred_expire: a requeued job waits so long (default two minutes) before it starts again.
# TmpFS: one folder a node, else the pmix plugins of two nodes meet in one.
# config_overrides: nodes may claim more cores than this machine has.
_CONFIG = """
ClusterName=lab
SlurmctldHost=h0
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,sched_interval=1,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=5
SlurmdTimeout=10
MessageTimeout=5
TCPTimeout=2
MinJobAge=300
NodeName={nodes} CPUs=4 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return why Slurm cannot be started here, or None."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return (
            f"no {', '.join(missing)}: apt-get install slurm-wlm slurmd slurmctld slurm-client munge "
            "libpmix2 libpmix-dev"
        )
    return None


class Lab:
    """A context: Slurm runs on all machines, its configuration is ``config``."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.config = folder / "slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        """The environment of a user of this Slurm, without what an outer job has set."""
        hidden = ("SLURM_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "DISTRAIN_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        return {**kept, "SLURM_CONF": str(self.config)}

    def __enter__(self) -> Lab:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self) -> None:
        names = self.machines.names
        for sub in ("munge", "state", "spool", *(f"tmp/{name}" for name in names)):
            (self.folder / sub).mkdir(parents=True)
        # munged refuses folders that others may write to, on the whole way down
        self.config.write_text(_CONFIG.format(folder=self.folder, nodes=",".join(names)))
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        options = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        words = [f"--{option}={munge / name}" for option, name in options.items()]
        self._daemon("h0", ["munged", "--foreground", "--force", f"--key-file={munge / 'key'}", *words])
        self._until(lambda: (munge / "socket").exists(), "munged")
        self._daemon("h0", ["slurmctld", "-D"])
        for name in names:
            self._daemon(name, ["slurmd", "-D"])
        self._until(lambda: self._idle() == len(names), "the nodes")

    def _daemon(self, machine: str, command: list[str]) -> None:
        with open(self.folder / "daemons.log", "a") as log:
            self._daemons.append(
                subprocess.Popen(
                    self.machines.entering(machine, command),
                    env=self.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def _until(self, done: object, what: str) -> None:
        assert callable(done)
        until = time.monotonic() + _SECONDS
        while not done():
            if time.monotonic() > until:
                logs = "\n".join(p.read_text()[-2000:] for p in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"{what} did not come up:\n{logs}")
            time.sleep(0.1)

    def _idle(self) -> int:
        answer = self.user(["sinfo", "--noheader", "-N", "-o", "%T"])
        return answer.stdout.split().count("idle")

    def user(self, command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as a user on the first machine."""
        return self.machines.run(
            "h0", command, cwd, env=self.environment(), capture_output=True, text=True, timeout=120
        )

    def state(self, job: str) -> dict[str, str]:
        """Return what Slurm knows of a job, e.g. ``JobState`` and ``ExitCode``."""
        text = self.user(["scontrol", "--oneliner", "show", "job", job]).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, job: str, seconds: float = 180.0) -> dict[str, str]:
        """Wait until a job has ended; return its state."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            state = self.state(job)
            if state.get("JobState") not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"):
                return state
            time.sleep(0.3)
        raise TimeoutError(f"job {job} has not ended: {self.state(job)}")
