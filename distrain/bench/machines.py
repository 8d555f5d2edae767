"""Several machines on one: Linux namespaces, each with a host name, network cards and a /dev/shm of its own.

Benchmarks and tests of several hosts run on them, with links of a stated rate. Needs root, iproute2
and util-linux. A machine is one sleeping process in its own net, uts, mount and ipc namespaces; a
switch is one more, with a bridge for each rail. When these processes die the kernel removes all of it:
links, bridges, mounts. They die with the process that made them, whatever ends it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from distrain.errors import UsageError

NEEDED = ("unshare", "nsenter", "setpriv", "ip", "tc")
_START_SECONDS = 20.0
# Of a link's token bucket: a burst of some frames, and room for what TCP sends before it learns the rate.
_QUEUE = ("burst", "256kb", "limit", "4mb")

# UCX and Slurm look into /sys: it must show this machine's cards, and still the control groups.
_SETUP = """
hostname {name}
ip link set lo up
mount --bind {hosts} /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p {folder}/cgroup-{name}
mount --rbind /sys/fs/cgroup {folder}/cgroup-{name}
mount -t sysfs sysfs /sys
mount --rbind {folder}/cgroup-{name} /sys/fs/cgroup
umount -l {folder}/cgroup-{name}
"""
# What stands in for ssh: `agent [options] HOST command`. Like sshd it gives a fresh environment.
_AGENT = """#!/bin/sh
while :; do case "$1" in -*) shift;; *) break;; esac; done
pid=$(cat {folder}/$1.pid) || exit 255
shift
exec nsenter -t "$pid" --net --uts --mount --ipc --wd=/ -- env -i HOME=/root USER=root SHELL=/bin/sh \\
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c "$*"
"""


def bytes_per_second(rate: str) -> float:
    """Return a rate as tc spells it, ``1gbit`` or ``100mbps`` (bytes), in bytes a second.

    Raises:
        UsageError: it is not spelled so.
    """
    match = re.fullmatch(r"([0-9.]+)([kmgt]?)(i?)(bit|bps)?", rate.lower())
    if match is None:
        raise UsageError("--rate", f"{rate!r} is not a rate", "write it as tc does, e.g. 1gbit")
    number, prefix, binary, unit = match.groups()
    scale = (1024 if binary else 1000) ** ("kmgt".index(prefix) + 1 if prefix else 0)
    return float(number) * scale / (1 if unit == "bps" else 8)


def why_not() -> str | None:
    """Return why machines cannot be emulated here, or None."""
    if os.geteuid() != 0:
        return "emulated machines need root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"emulated machines need {', '.join(missing)} (packages iproute2 and util-linux)"
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "--ipc", "true"], capture_output=True)
    return None if probe.returncode == 0 else f"no namespaces here: {probe.stderr.decode().strip()}"


class Machines:
    """A context of ``count`` machines ``h0``, ``h1``, ... on one or more networks.

    Attributes:
        names: of the machines.
        networks: one for each rail, e.g. ``10.91.0.0/24``; rail r is the card ``eth{r}``.
        agent: path of the program that stands in for ssh.

    Args:
        count: how many, 1 to 250.
        rails: network cards of each.
        rate: of each link in each direction, as tc spells it, e.g. ``1gbit``; empty: as fast as the kernel.
        base: first two numbers of the addresses; machines made at the same time may share it.
    """

    def __init__(self, count: int, rails: int = 1, rate: str = "", base: str = "10.91") -> None:
        self.names = tuple(f"h{number}" for number in range(count))
        self.networks = tuple(f"{base}.{rail}.0/24" for rail in range(rails))
        self._base, self._rails, self._rate = base, rails, rate
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._spaces: dict[str, str] = {}  # network namespace of each machine that has started
        self._folder = Path(tempfile.mkdtemp(prefix="machines-"))
        # Removes the folder when its pipe closes: at the end of this process, whatever ends it.
        self._broom = subprocess.Popen(
            ["sh", "-c", 'cat; rm -rf "$1"', "sh", str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.agent = self._folder / "agent"

    def __enter__(self) -> Machines:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        addresses = "".join(f"{self._address(i)} {name}\n" for i, name in enumerate(self.names))
        hosts = self._folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + addresses)
        self._hold("switch", "ip link set lo up")
        for name in self.names:
            self._hold(name, _SETUP.format(name=name, hosts=hosts, folder=self._folder))
        cables = []
        for rail in range(self._rails):
            cables += [f"link add br{rail} type bridge", f"link set br{rail} up"]
            for number, name in enumerate(self.names):
                pid, port = self._processes[name].pid, _port(number, rail)
                cables.append(f"link add {port} type veth peer name eth{rail} netns {pid}")
                cables.append(f"link set {port} master br{rail} up")
        self._ip("switch", cables)
        for number, name in enumerate(self.names):
            cards = [
                (f"addr add {self._address(number, rail)}/24 dev eth{rail}", f"link set eth{rail} up")
                for rail in range(self._rails)
            ]
            self._ip(name, [line for lines in cards for line in lines])
        if self._rate:
            self.set_rate(self._rate)
        self.agent.write_text(_AGENT.format(folder=self._folder))
        self.agent.chmod(0o755)

    def _address(self, number: int, rail: int = 0) -> str:
        return f"{self._base}.{rail}.{number + 1}"

    def set_rate(self, rate: str) -> None:
        """Limit every link in both directions: at the machine's card and at the switch's port."""
        for number, name in enumerate(self.names):
            for rail in range(self._rails):
                for where, device in ((name, f"eth{rail}"), ("switch", _port(number, rail))):
                    shape = ["root", "tbf", "rate", rate, *_QUEUE]
                    self.run(where, ["tc", "qdisc", "replace", "dev", device, *shape], check=True)

    def plug(self, name: str, rail: int = 0, up: bool = True) -> None:
        """Plug a machine's cable in, or pull it: the machine sees its link go."""
        port = _port(self.names.index(name), rail)
        self.run("switch", ["ip", "link", "set", port, "up" if up else "down"], check=True)

    def starter_args(self, dialect: str) -> tuple[str, ...]:
        """Return what mpirun must be told about these networks and their ssh, in an entry of `DIALECTS`."""
        networks = ",".join(self.networks)
        if dialect == "openmpi5":
            return (
                *("--prtemca", "plm", "ssh", "--prtemca", "plm_ssh_agent", str(self.agent)),
                *("--prtemca", "ras", "^slurm", "--prtemca", "prte_if_include", self.networks[0]),
                *("--mca", "pml", "ob1", "--mca", "btl", "tcp,self,sm"),
                *("--mca", "btl_tcp_if_include", networks),
            )
        if dialect == "openmpi4":
            return (
                *("--mca", "plm", "rsh", "--mca", "plm_rsh_agent", str(self.agent)),
                *("--mca", "oob_tcp_if_include", self.networks[0]),
                *("--mca", "btl_tcp_if_include", networks),
            )
        if dialect == "mpich":
            return ("-launcher", "ssh", "-launcher-exec", str(self.agent), "-iface", "eth0")
        return ("-bootstrap", "ssh", "-bootstrap-exec", str(self.agent), "-iface", "eth0")

    def _hold(self, name: str, setup: str) -> None:
        ready = self._folder / f"{name}.ready"
        script = f"{setup}\n: > {ready}\nexec sleep infinity"
        # pdeathsig: the machine is switched off when this process ends, even by SIGKILL
        spaces = ["unshare", "--net", "--uts", "--mount", "--ipc", "--propagation", "private"]
        self._processes[name] = process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *spaces, "sh", "-ec", script], stdin=subprocess.DEVNULL
        )
        (self._folder / f"{name}.pid").write_text(str(process.pid))
        until = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"machine {name} did not start")
            time.sleep(0.01)
        self._spaces[name] = os.readlink(f"/proc/{process.pid}/ns/net")

    def _ip(self, name: str, lines: Sequence[str]) -> None:
        self.run(name, ["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)

    def entering(self, name: str, command: Sequence[str], cwd: Path | None = None) -> list[str]:
        """Return the command line that runs ``command`` on a machine."""
        spaces = ["--net", "--uts", "--mount", "--ipc", f"--wd={cwd or os.getcwd()}"]
        pid = str(self._processes[name].pid)
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", pid, *spaces, "--", *command]

    def run(
        self, name: str, command: Sequence[str], cwd: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command on a machine to its end."""
        return subprocess.run(self.entering(name, command, cwd), **options)

    def processes(self, name: str) -> list[int]:
        """Return the ids of the processes that run on a machine, beside the one that holds it."""
        holder = self._processes[name].pid
        return [pid for pid in _processes_in(self._spaces[name]) if pid != holder]

    def kill(self, name: str) -> None:
        """Cut a machine's power: every process on it is killed at once. It may have died before."""
        holder, space = self._processes.pop(name), self._spaces.pop(name, None)
        holder.kill()
        for _ in range(100):
            # One that has not started may still be in the namespace of this process: it has no entry.
            pids = [] if space is None else _processes_in(space)
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
        holder.wait()

    def stop(self) -> None:
        """Switch everything off and remove what is left."""
        for name in list(self._processes):
            self.kill(name)
        self._broom.communicate()


def _port(number: int, rail: int) -> str:
    return f"port{number}r{rail}"


def _processes_in(space: str) -> list[int]:
    """Return the living processes whose network namespace is ``space`` (``net:[123]``)."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            dead = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if not dead and os.readlink(folder / "ns" / "net") == space:
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found
