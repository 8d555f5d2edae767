"""What interrupts the loop now and then: a line of metrics, an evaluation, a checkpoint.

All are collectives, all stop the meter's clocks, and all read the losses first: no checkpoint is
written after a loss that is not finite.
"""

from __future__ import annotations

import math
import time

import torch

from distrain.train import checkpoint, ranks
from distrain.train.errors import checkpoint_late, diverged
from distrain.train.evaluate import evaluate
from distrain.train.meter import Meter
from distrain.train.metrics import checkpoint_record, evaluation_record, interval_record
from distrain.train.parts import Parts
from distrain.train.preprocess import Preprocess
from distrain.train.recorder import Recorder
from distrain.train.run import CHECKPOINTS, Run, capture
from distrain.train.stop import Stop


def log_interval(run: Run, meter: Meter, recorder: Recorder) -> None:
    """Write what has happened since the last time; nothing, if nothing has."""
    with meter.paused():
        interval = meter.read()
        if interval.steps:
            learning_rate = run.learning_rate(run.step - 1)  # that of the step just done
            recorder.write(
                interval_record(run.step, run.steps_per_epoch, learning_rate, run.image_size, interval)
            )


def evaluate_now(
    run: Run, parts: Parts, preprocess: Preprocess, meter: Meter, recorder: Recorder, stop: Stop
) -> bool:
    """Evaluate the model as it is; return False, on all ranks, if a request to stop came before the end."""
    with meter.paused():
        meter.settle()
        began = time.perf_counter()
        found = evaluate(
            run.module, parts.eval_loader, preprocess, parts.settings.precision, lambda: stop.requested
        )
        if found is None:
            return False
        run.evaluation, run.evaluated_at = found, run.step
        seconds = time.perf_counter() - began
        recorder.write(evaluation_record(run.step, run.steps_per_epoch, found, seconds))
        return True


def check_finite(run: Run) -> None:
    """Make sure that the run is worth keeping; a collective.

    The loss of a step is that before its update: what the update has spoilt shows only in the
    parameters, or, where they are huge but finite, in the evaluation. Costs one pass over the parameters.

    Raises:
        TrainingError: a parameter or the loss of the evaluation at this step is not finite; on all ranks.
    """
    where = f"step {run.step}"
    finite = [torch.isfinite(p.detach()).all() for p in run.module.parameters()]
    if ranks.minimum(int(torch.stack(finite).all().item()) if finite else 1) == 0:
        raise diverged(where, "the parameters are")
    evaluated = run.evaluation if run.evaluated_at == run.step else None
    if evaluated is not None and not math.isfinite(evaluated.loss):  # the same on all ranks
        raise diverged(where, "the loss on the held-out images is")


def checkpoint_now(run: Run, parts: Parts, meter: Meter, recorder: Recorder) -> None:
    """Let rank 0 write a checkpoint; if it cannot, all ranks raise its CheckpointError.

    Raises:
        TrainingError: see `check_finite`; nothing is written.
        CheckpointError: it cannot be written.
    """
    with meter.paused():
        meter.settle()
        check_finite(run)
        began = time.perf_counter()
        state, folder, settings = capture(run, parts), parts.folder / CHECKPOINTS, parts.settings
        written = ranks.by_first(
            parts.world.rank,
            lambda: checkpoint.save(folder, run.step, state, settings.keep_checkpoints),
            settings.checkpoint_seconds,
            checkpoint_late(folder, "written", settings.checkpoint_seconds),
        )
        if written is not None:
            run.checkpoint = written
            name = str(run.checkpoint.relative_to(parts.folder))
            size, seconds = run.checkpoint.stat().st_size, time.perf_counter() - began
            recorder.write(checkpoint_record(run.step, run.steps_per_epoch, name, size, seconds))
