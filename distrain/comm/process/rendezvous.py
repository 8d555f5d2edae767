"""The key-value store that torch.distributed wants, found through MPI: no address to configure."""

from __future__ import annotations

import socket
from datetime import timedelta

import torch.distributed as dist

from distrain.comm.process.mpi import MPI
from distrain.comm.process.network import named_interfaces
from distrain.errors import LaunchError
from distrain.world import World

CONNECT_SECONDS = 20.0
PROBE_SECONDS = 3.0


def addresses() -> list[str]:
    """Return the addresses under which other hosts may reach this one, the likeliest first."""
    found: list[str] = []
    names = (socket.getfqdn(), socket.gethostname())
    for name in dict.fromkeys(names):
        try:
            found += [str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)]
        except OSError:
            continue  # a name that this host itself cannot resolve helps nobody
    found += named_interfaces().values()
    outside = [address for address in dict.fromkeys(found) if not address.startswith("127.")]
    return [*outside, *dict.fromkeys(names)]


def first_reachable(candidates: list[str], port: int) -> str:
    """Return the first address that accepts a connection.

    Raises:
        LaunchError: none does; names what was tried and why each failed.
    """
    failures = []
    for address in candidates:
        try:
            socket.create_connection((address, port), timeout=PROBE_SECONDS).close()
        except OSError as error:
            failures.append(f"{address}: {error}")
        else:
            return address
    raise LaunchError(
        "rendezvous",
        f"rank 0 cannot be reached on port {port} ({'; '.join(failures)})",
        "open TCP between the hosts, or make their names resolve",
    )


def make_store(comm: MPI.Intracomm, world: World) -> dist.Store:
    """Return a store hosted by rank 0. Collective; to be called before the engine owns MPI.

    Raises:
        LaunchError: on all ranks alike, if any rank cannot reach rank 0.
    """
    if world.size == 1:
        return dist.HashStore()
    timeout = timedelta(seconds=CONNECT_SECONDS)
    server: dist.Store | None = None
    offer: tuple[list[str], int] | None = None
    if world.rank == 0:
        master = dist.TCPStore("127.0.0.1", 0, world.size, True, timeout, wait_for_workers=False)
        server, offer = master, (addresses(), master.port)
    offer = comm.bcast(offer, root=0)
    assert offer is not None
    candidates, port = offer
    problem: LaunchError | None = None
    if world.rank != 0:
        here = world.hosts[0] == world.hosts[world.rank]
        try:
            address = first_reachable(["127.0.0.1"] if here else candidates, port)
            server = dist.TCPStore(address, port, world.size, False, timeout, wait_for_workers=False)
        except LaunchError as error:
            problem = error
    for rank, found in enumerate(comm.allgather(problem)):
        if found is not None:
            raise LaunchError(f"rank {rank}", found.problem, found.do)
    assert server is not None
    return server
