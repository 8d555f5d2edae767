"""A pack in the memory of the node or mapped from the disk: the same training."""

from __future__ import annotations

from tests.jobs.support import Launch


def test_memory_and_disk_train_alike(launch: Launch) -> None:
    losses = []
    for place in ("node", "disk"):
        job = launch("--np", "2", f"name={place}", f"data.memory={place}")
        assert job.code == 0, job.err
        assert ("in memory on this node" in job.err) == (place == "node")
        losses.append([record["loss"] for record in job.metrics("train")])
    assert len(losses[0]) == 8 and losses[0] == losses[1]
