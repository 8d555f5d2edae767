"""The training loop. Read it from top to bottom; everything it calls does one thing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from distrain.comm.supervision.faults import fault_point
from distrain.train.errors import TrainingError
from distrain.train.events import check_finite, checkpoint_now, evaluate_now, log_interval
from distrain.train.finish import finish
from distrain.train.meter import Meter
from distrain.train.parts import Batch, Parts, Result, TrainLoader
from distrain.train.preprocess import Preprocess
from distrain.train.recorder import Recorder
from distrain.train.run import prepare
from distrain.train.spans import StepSpans
from distrain.train.step import optimizer_step
from distrain.train.stop import Stop


def train(parts: Parts) -> Result:
    """Train, evaluate, keep checkpoints, and report; every rank calls it.

    Raises:
        ConfigError: the parts do not fit together (see ``distrain.train.run.prepare``).
        TrainingError: the loss is not finite, or the loader ended too early.
        CheckpointError: a checkpoint cannot be written or resumed.
    """
    began = time.perf_counter()
    settings = parts.settings
    run = prepare(parts)
    preprocess = Preprocess(parts.device, settings.mean, settings.std, parts.channels_last)
    with Recorder(parts, run) as recorder, Stop() as stop:
        meter = Meter(parts.loader, parts.exposed_comm_seconds, parts.world.rank, parts.world.size)
        run.model.train()
        stopping = False
        if run.resumed_from is not None and run.due(settings.eval_every) and run.evaluated_at != run.step:
            # it stopped before it could
            stopping = not evaluate_now(run, parts, preprocess, meter, recorder, stop)
        last = run.step if stopping else run.total
        steps = StepSpans(run.step)
        for batch in batches(parts.loader, run.step, last):
            for group in run.optimizer.param_groups:
                group["lr"] = run.learning_rate(run.step)
            loss, correct = optimizer_step(run.model, run.optimizer, batch, preprocess, settings)
            run.step += 1
            run.image_size = batch.images.shape[1]
            fault_point(parts.world.rank, run.step)
            meter.add(run.step, loss, correct, len(batch.labels))
            recorder.step(run.step)
            steps.mark(run.step)

            stopping = stop.agreed() and run.step < run.total
            if run.due(settings.log_every) or stopping:
                log_interval(run, meter, recorder)
            if run.due(settings.eval_every) and not stopping:
                stopping = not evaluate_now(run, parts, preprocess, meter, recorder, stop)
                if stopping:  # the next start cannot tell of the steps since the last line
                    log_interval(run, meter, recorder)
            if run.due(settings.checkpoint_every) or stopping:
                checkpoint_now(run, parts, meter, recorder)
            if stopping:
                break
        if run.resumed_from == run.step >= run.total:  # there was nothing left to do but evaluate
            check_finite(run)
    return finish(run, parts, meter, time.perf_counter() - began)


def batches(loader: TrainLoader, step: int, total: int) -> Iterator[Batch]:
    """The batches of steps `step` to `total`, epoch after epoch.

    Raises:
        TrainingError: an epoch of the loader is shorter than `loader.steps_per_epoch`.
    """
    while step < total:
        epoch, position = divmod(step, loader.steps_per_epoch)
        end = min(total, step + loader.steps_per_epoch - position)
        for batch in islice(loader.epoch(epoch, position, total), end - step):
            yield batch
            step += 1
        if step < end:
            raise TrainingError(
                f"epoch {epoch}",
                f"the loader ended {end - step} steps before the end",
                "report this: a loader must give loader.steps_per_epoch batches",
            )
