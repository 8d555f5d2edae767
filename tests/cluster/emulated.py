"""Several machines on one: Linux namespaces, each with a host name, a network card and a /dev/shm of its own.

Needs root, iproute2 and util-linux. A machine is one sleeping process in its own net, uts, mount and
ipc namespaces; a switch is one more, with a bridge. When these processes die the kernel removes all
of it: links, bridges, mounts. They die with the test, whatever ends it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

NEEDED = ("unshare", "nsenter", "setpriv", "ip")
_START_SECONDS = 20.0

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
    """A context of ``count`` machines ``h0``, ``h1``, ... on one network.

    Attributes:
        names: of the machines.
        agent: path of the program that stands in for ssh.
    """

    def __init__(self, count: int, subnet: str = "10.91.0") -> None:
        self.names = tuple(f"h{number}" for number in range(count))
        self.network = f"{subnet}.0/24"
        self._subnet = subnet
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="machines-"))
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
        addresses = "".join(f"{self._subnet}.{i + 1} {name}\n" for i, name in enumerate(self.names))
        hosts = self._folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + addresses)
        self._hold("switch", "ip link set lo up")
        for name in self.names:
            self._hold(name, _SETUP.format(name=name, hosts=hosts, folder=self._folder))
        cables = ["link add br0 type bridge", "link set br0 up"]
        for number, name in enumerate(self.names):
            pid = self._processes[name].pid
            cables.append(f"link add port{number} type veth peer name eth0 netns {pid}")
            cables.append(f"link set port{number} master br0 up")
        self._ip("switch", cables)
        for number, name in enumerate(self.names):
            self._ip(name, [f"addr add {self._subnet}.{number + 1}/24 dev eth0", "link set eth0 up"])
        self.agent.write_text(_AGENT.format(folder=self._folder))
        self.agent.chmod(0o755)

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

    def kill(self, name: str) -> None:
        """Cut a machine's power: every process on it is killed at once."""
        space = os.readlink(f"/proc/{self._processes[name].pid}/ns/net")
        holder = self._processes.pop(name)
        for _ in range(100):
            pids = [pid for pid in _processes_in(space) if pid != os.getpid()]
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
        shutil.rmtree(self._folder, ignore_errors=True)


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
