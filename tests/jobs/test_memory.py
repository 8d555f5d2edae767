"""A pack in the memory of the node or mapped from the disk: the same training."""

from __future__ import annotations

from tests.jobs.trainings import Trainings


def test_memory_and_disk_train_alike(trainings: Trainings) -> None:
    node, disk = trainings(2, "plain"), trainings(2, "disk")
    assert "in memory on this node" in node.log() and "in memory on this node" not in disk.log()
    assert len(node.losses()) == 8 and node.losses() == disk.losses()
