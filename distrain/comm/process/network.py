"""The network interfaces of this host: their names, addresses and speeds, and which of them lead out."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from distrain.schedule.advice import payload_rate

# How the names of interfaces begin that lead to no other node.
_INSIDE = ("lo", "docker", "br-", "virbr", "veth", "cni", "flannel", "tun", "tap")


def named_interfaces() -> dict[str, str]:
    """Return the network interfaces of this host that have an IPv4 address, without loopback (Linux)."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name[:15].encode())
            try:
                answer = fcntl.ioctl(probe.fileno(), 0x8915, request)  # SIOCGIFADDR
            except OSError:
                continue  # an interface without an IPv4 address
            found[name] = socket.inet_ntoa(answer[20:24])
    return {name: address for name, address in found.items() if not address.startswith("127.")}


def count_rails(interfaces: Iterable[str]) -> int:
    """Return how many of these network interfaces lead to other nodes; at least 1."""
    return max(1, sum(not name.startswith(_INSIDE) for name in interfaces))


def link_speed(interfaces: Iterable[str], folder: Path = Path("/sys/class/net")) -> float:
    """Return the payload bytes a second of the slowest interface that leads out; infinity: unknown."""
    found = []
    for name in interfaces:
        if not name.startswith(_INSIDE):
            try:
                megabits = int((folder / name / "speed").read_text())
            except (OSError, ValueError):
                continue  # some drivers do not say
            if megabits > 0:
                found.append(payload_rate(megabits / 1e3))
    return min(found, default=float("inf"))
