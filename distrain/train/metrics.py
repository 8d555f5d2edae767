"""`metrics.jsonl` and TensorBoard: the same numbers, for programs and for eyes.

The keys are described in docs/run_folder.md.
"""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from distrain.files import write_atomic
from distrain.train.evaluate import Evaluation
from distrain.train.meter import Interval

log = logging.getLogger(__name__)

Record = dict[str, Any]

_QUEUE = 1000  # numbers on their way to TensorBoard's thread: more than a record has, so no write waits


def interval_record(
    step: int, steps_per_epoch: int, learning_rate: float, image_size: int, interval: Interval
) -> Record:
    """What a logging interval says; seconds are per step."""
    steps, images = max(1, interval.steps), max(1, interval.images)
    data, compute, comm = interval.shares()
    return {
        "kind": "train",
        "time": time.time(),
        "step": step,
        "epoch": step / steps_per_epoch,
        "steps": interval.steps,
        "images": interval.images,
        "loss": interval.loss_sum / images,
        "top1": interval.correct / images,
        "lr": learning_rate,
        "image_size": image_size,
        "images_per_s": interval.images_per_second,
        "step_s": interval.wall_seconds / steps,
        "data_s": interval.data_seconds / steps,
        "compute_s": interval.compute_seconds / steps,
        "comm_s": interval.comm_seconds / steps,
        "data_share": data,
        "compute_share": compute,
        "comm_share": comm,
    }


def evaluation_record(step: int, steps_per_epoch: int, evaluation: Evaluation, seconds: float) -> Record:
    """What an evaluation says."""
    return {
        "kind": "eval",
        "time": time.time(),
        "step": step,
        "epoch": step / steps_per_epoch,
        "images": evaluation.images,
        "loss": evaluation.loss,
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "seconds": seconds,
    }


def checkpoint_record(step: int, steps_per_epoch: int, name: str, size: int, seconds: float) -> Record:
    """What a checkpoint says."""
    return {
        "kind": "checkpoint",
        "time": time.time(),
        "step": step,
        "epoch": step / steps_per_epoch,
        "file": name,
        "bytes": size,
        "seconds": seconds,
    }


def percent(share: float, digits: int = 0) -> str:
    """For people: "12%", or "unknown" for nan."""
    return "unknown" if math.isnan(share) else f"{share:.{digits}%}"


def to_json(record: Record) -> str:
    """One line; numbers that JSON cannot say (nan, inf) become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(clean, allow_nan=False)


class MetricsFile:
    """Appends records to `metrics.jsonl`, each flushed at once.

    Args:
        path: the file.
        last_step: records of later steps are dropped first: a resumed run will write them again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= last_step]
            write_atomic(path, "".join(f"{line}\n" for line in kept).encode())
        self._file = open(path, "a")  # noqa: SIM115 (closed by close)

    def write(self, record: Record) -> None:
        """Add a line."""
        self._file.write(to_json(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that was cut short when its run was killed


def told_evaluation(path: Path, step: int) -> Evaluation | None:
    """Return the evaluation that `metrics.jsonl` tells of at a step, the last if there are several."""
    if not path.exists():
        return None
    for line in reversed(path.read_text().splitlines()):
        if _step(line) == step and (record := json.loads(line))["kind"] == "eval":
            images, loss = record["images"], record["loss"]
            right1, right5 = (round(record[key] * images) for key in ("top1", "top5"))
            return Evaluation(images, right1, right5, math.nan if loss is None else loss * images)
    return None


class TensorBoard:
    """Writes the numbers of each record as scalars named `kind/key`, e.g. `train/loss`.

    What cannot be written (full disk, ...) ends this alone, with a warning: `metrics.jsonl` has it all.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        from tensorboardX import SummaryWriter

        self._folder = folder
        # Hides what the run that was resumed wrote after its checkpoint: purge_step itself is hidden too.
        self._writer = SummaryWriter(
            str(folder), purge_step=steps_done + 1 if steps_done else None, max_queue=_QUEUE
        )
        self._ended = False

    def write(self, record: Record) -> None:
        """Add the record's numbers at its step."""
        if not self._works():
            return
        for key, value in record.items():
            if key not in ("time", "step") and isinstance(value, (int, float)) and not math.isnan(value):
                self._writer.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def close(self) -> None:
        """Flush and close the event file."""
        if self._works():
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(str(error))
        self._ended = True

    def _works(self) -> bool:
        """Ask after the thread that writes: an error ends it, and its queue then fills up for ever."""
        if not self._ended and not self._writer.file_writer.event_writer._worker.is_alive():
            self._give_up("the output above has the error")
        return not self._ended

    def _give_up(self, why: str) -> None:
        self._ended = True
        log.warning(
            "%s: TensorBoard's events cannot be written (%s) and end here; metrics.jsonl has all numbers",
            self._folder, why,
        )  # fmt: skip
        events = self._writer.file_writer.event_writer
        events._event_queue.cancel_join_thread()
        events._closed = True  # or the handler that it has set for the exit waits for the thread for ever
