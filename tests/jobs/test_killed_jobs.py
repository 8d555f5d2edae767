"""A job that is killed while it loads, holds or exchanges a pack leaves nothing in shared memory."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from distrain.bench.packs import write_noise
from distrain.data.pack import pack
from tests.jobs import scripts

MIB = 1 << 20
# MPICH leaves those of killed ranks behind, messages included; Open MPI's lie where pytest clears them away.
MAILBOXES = "mpich_shm_"

HOLD = """
import os, sys, time, zlib
from pathlib import Path
from mpi4py import MPI
from distrain.data import store as store_module
from distrain.data.format import read_manifest
from distrain.data.nodes.groups import Groups
from distrain.data.settings import DataSettings
from distrain.data.nodes.sharing import Sharing
from distrain.data.store import Store
from distrain.world import World

WORLD, (pack, folder, when) = MPI.COMM_WORLD, sys.argv[1:]

def ready():
    path = Path(folder, f"{WORLD.rank}.tmp")
    path.write_text(str(os.getpid()))
    path.rename(path.with_suffix(".pid"))

def load_and_wait(*arguments):
    load(*arguments)
    ready()
    time.sleep(60)

def exchange():
    from distrain.comm.engine.engine import Engine
    from distrain.comm.engine.guest import submit_bulk
    from distrain.data.exchange import MpiCarrier
    settings = DataSettings(train="-", val="-", group_nodes=2, batch_per_rank=1, image_size=8, threads=1)
    groups, manifest = Groups.of(World.of(WORLD.rank, "ab"), 2), read_manifest(pack)
    sharing = Sharing(settings, groups, manifest, manifest)
    store = Store.open(pack, settings, None, sharing.train_part(WORLD.rank))
    carrier = MpiCarrier(WORLD, 0, lambda operation: submit_bulk(engine, operation))
    engine = Engine(WORLD.Abort, 60, 600)
    reading = sharing.reading(store, 0)
    windows = sharing.windows(store, reading, WORLD.rank, carrier)
    for step in range(10000000):
        windows.taking(step)
        epoch, place = divmod(step, reading.steps_per_epoch)
        images = reading.order(epoch).indices(reading.positions(place, WORLD.rank))
        assert all(windows.want(step).blobs(images))
        windows.done(step)
        if step == 5:
            ready()

if when == "load":
    load, store_module.load_pieces = store_module.load_pieces, load_and_wait
if when == "exchange":
    exchange()
store = Store.open(pack, DataSettings(train="-", val="-"), WORLD)
ready()
if when == "check":
    while not Path(folder, "go").exists():
        time.sleep(0.02)
    found = [zlib.crc32(store.blob(i)) == store.records["crc32"][i] for i in range(store.count)]
    path = Path(folder, f"{WORLD.rank}.all")
    path.write_text(str(found.count(True)))
    path.rename(path.with_suffix(".right"))
time.sleep(60)
"""


def holders(content: bytes) -> list[str]:
    """Files of the shared-memory file system that hold these bytes."""
    found = []
    for path in Path("/dev/shm").iterdir():
        if path.name.startswith(MAILBOXES):
            continue
        try:
            if path.is_file() and content in path.read_bytes():
                found.append(path.name)
        except FileNotFoundError:  # of another job that ends just now
            continue
    return found


@pytest.mark.parametrize(("when", "killed"), [("load", 1), ("hold", 2), ("exchange", 1)])
def test_a_killed_job_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, killed: int
) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm here")
    monkeypatch.setattr("distrain.data.pack._SHARD_BYTES_LEAST", 1)
    folder = tmp_path / "src/ape"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (50, 40), (i * 50, 9, 9)).save(folder / f"{i}.jpg", comment=os.urandom(16))
    pack(f"imagefolder:{tmp_path}/src", tmp_path / "pack")
    job = scripts.start(2, tmp_path, HOLD, str(tmp_path / "pack"), str(tmp_path), when)
    while len(pids := sorted(tmp_path.glob("*.pid"))) < 2:
        assert job.poll() is None, f"the job ended early: {job.communicate()[1]}"
        time.sleep(0.05)
    for path in pids[:killed]:
        os.kill(int(path.read_text()), signal.SIGKILL)
    _, output = job.communicate(timeout=60)
    assert job.returncode != 0, output
    assert holders((folder / "1.jpg").read_bytes()) == []


def shared_bytes() -> int:
    """Memory of this machine that is shared, by anybody."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shmem:"))


def wait_for(what: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_runs_on_a_node_do_not_meet_and_a_kill_frees_their_memory(tmp_path: Path) -> None:
    """Each holds 96 MiB of its own; then every rank of both is killed at once."""
    count, image_bytes = 96, MIB
    jobs_of, before = [], shared_bytes()
    for seed in (1, 2):
        folder = tmp_path / f"job-{seed}"
        write_noise(folder / "pack", count, image_bytes, 16, seed)
        jobs_of.append((folder, scripts.start(2, folder, HOLD, str(folder / "pack"), str(folder), "check")))
    wait_for(lambda: len(list(tmp_path.glob("job-*/*.pid"))) == 4)
    held = shared_bytes()
    for folder, _ in jobs_of:
        (folder / "go").touch()
    wait_for(lambda: len(list(tmp_path.glob("job-*/*.right"))) == 4)
    assert [path.read_text() for path in tmp_path.glob("job-*/*.right")] == [str(count)] * 4
    assert held - before > 1.5 * count * image_bytes  # others may give memory back meanwhile
    for path in tmp_path.glob("job-*/*.pid"):
        os.kill(int(path.read_text()), signal.SIGKILL)
    for _, job in jobs_of:
        _, output = job.communicate(timeout=60)
        assert job.returncode != 0, output
    wait_for(lambda: held - shared_bytes() > 1.5 * count * image_bytes)
