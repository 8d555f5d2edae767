"""Whole trainings of the small recipe, several of them one after the other by the same ranks.

Most of a short job is its start: every rank imports torch. What compares results of trainings, and not how
they are started, takes them from here; each training has its run folder, as the launcher makes it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.jobs.scripts import start
from tests.jobs.support import RECIPE, metrics, result

TIMEOUT_SECONDS = 240
GROUP = ("model.norm=group", "train.optimizer.lr=0.01")
LONG = ("train.duration=40st", "train.checkpoint_every=40st")
# By the number of ranks. "evaluated" is "long", which has come to its end and lost its result.
COURSES: dict[int, dict[str, tuple[str, ...]]] = {
    1: {
        "group": ("data.batch_per_rank=30", *GROUP),
        "whole batch": ("data.batch_per_rank=30",),
        "micro-batches": ("train.accumulate=2",),
        "long": ("data.batch_per_rank=30", *LONG),
    },
    2: {
        "plain": (),
        "disk": ("data.memory=disk",),
        "group": GROUP,
        "two epochs": ("train.duration=54st", "train.checkpoint_every=25st", "train.eval_every=54st"),
        "another seed": ("seed=4",),
        "growing sizes": (
            "data.batch_per_rank=180", "train.duration=3ep", "data.image_size_from={0: 8, 1: 12, 2: 16}",
        ),
        "skipping": (
            "data.train=SPOILT", "data.batch_per_rank=180", "train.duration=4ep", "data.on_bad_image=skip",
            "data.last_batch=wrap",
        ),
        "timeline": ("comm.timeline=true", "comm.node_memory=false"),
        "evaluated": LONG,
    },
    3: {
        "ring": ("data.batch_per_rank=10", "comm.algorithm=ring", "comm.node_memory=false", *GROUP),
        "multicolor_ring": (
            "data.batch_per_rank=10", "comm.algorithm=multicolor_ring", "comm.node_memory=false", *GROUP,
        ),
        "evaluated": ("data.batch_per_rank=10", *LONG),
    },
}  # fmt: skip
SCRIPT = """
import json, os, sys
from distrain.config.load import load
from distrain.worker.run import main

recipe, courses = sys.argv[1], json.loads(sys.argv[2])
for folder, options, resume in courses:
    os.environ |= {"DISTRAIN_RUN_DIR": folder, "DISTRAIN_RESUME": resume}
    assert main(load(recipe, options)) == 0
"""


@dataclass
class Training:
    """A finished training."""

    folder: Path

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind in metrics.jsonl."""
        return metrics(self.folder, kind)

    def losses(self) -> list[float]:
        """The loss of every step."""
        return [record["loss"] for record in self.metrics("train")]

    def result(self) -> dict[str, Any]:
        """result.json."""
        return result(self.folder)

    def log(self) -> str:
        """What rank 0 wrote."""
        return (self.folder / "logs" / "rank-0000.log").read_text()


def run(ranks: int, folder: Path, packs: Path, long: Path | None) -> None:
    """Train all courses of a number of ranks; "evaluated" goes on from a copy of `long`."""
    recipe = folder / "job.yaml"
    recipe.write_text(RECIPE.replace("TRAIN", str(packs / "train")).replace("VAL", str(packs / "val")))
    courses = []
    for name, options in COURSES[ranks].items():
        if name == "evaluated":
            assert long is not None
            shutil.copytree(long, folder / name, ignore=shutil.ignore_patterns("result.json"))
        else:
            (folder / name).mkdir()
        filled = [option.replace("SPOILT", str(packs / "spoilt")) for option in options]
        courses.append((str(folder / name), filled, "1" if name == "evaluated" else ""))
    job = start(ranks, folder, SCRIPT, str(recipe), json.dumps(courses))
    try:
        _, err = job.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        job.kill()
    assert job.returncode == 0, err


Trainings = Callable[[int, str], Training]
