"""Whole training on two nodes that share a pack, both of them on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from distrain.data.pack import pack
from tests.jobs import scripts

TRAIN = """
import os, sys
from distrain.worker.run import main
from distrain.comm.process import mpi
from distrain.config.load import load
from distrain.world import World

folder = sys.argv[1]

def two_nodes(comm):
    return World.of(comm.rank, ["n0", "n1"])

mpi.discover_world = two_nodes
mpi.node_comm = lambda comm: comm.Split(comm.rank, 0)
for name, options in (("whole", []), ("parts", ["data.group_nodes=2", "data.exchange_window=0.01"])):
    os.environ["DISTRAIN_RUN_DIR"] = f"{folder}/{name}"
    assert main(load(f"{folder}/run.yaml", options)) == 0
"""
RECIPE = """
name: job
model: {name: resnet8}
data: {train: PACK, val: PACK, batch_per_rank: 4, eval_batch_per_rank: 8, image_size: 16, threads: 1}
train: {duration: 2ep, log_every: 1st, eval_every: 1ep, tensorboard: false}
"""


def test_training_is_the_same_with_the_pack_whole_or_in_parts(tmp_path: Path) -> None:
    """Same losses to the last bit: the same pixels reached the same ranks at the same steps."""
    for number in range(40):
        path = tmp_path / f"src/{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (20, 24, 3), np.uint8)
        Image.fromarray(noise).save(path)
    pack(f"imagefolder:{tmp_path}/src", tmp_path / "pack")
    (tmp_path / "run.yaml").write_text(RECIPE.replace("PACK", str(tmp_path / "pack")))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    job = scripts.start(2, tmp_path, TRAIN, str(tmp_path))
    _, output = job.communicate(timeout=120)
    assert job.returncode == 0, output
    runs = {}
    for name in ("whole", "parts"):
        records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        runs[name] = [[record[key] for key in sorted(record) if "loss" in key] for record in records]
    assert len(runs["whole"]) >= 12 and runs["whole"] == runs["parts"]
    assert "20 of 40 images" in output
