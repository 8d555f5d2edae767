"""From the end of the loop to the Result."""

from __future__ import annotations

from distrain.train import ranks
from distrain.train.meter import Meter
from distrain.train.parts import Parts, Result
from distrain.train.report import show_result, write_result
from distrain.train.run import Run


def finish(run: Run, parts: Parts, meter: Meter, wall_seconds: float) -> Result:
    """Add up the run, and let rank 0 write `result.json` and print the table; a collective."""
    skipped = set().union(*ranks.gather(parts.skipped_images()))  # several ranks may meet the same image
    data, compute, comm = meter.total.shares()
    evaluation = run.evaluation if run.evaluated_at == run.step else None
    result = Result(
        # The end is always evaluated, unless it was asked to stop meanwhile.
        status="completed" if run.step >= run.total and evaluation is not None else "stopped",
        steps=run.step,
        epochs=run.step / run.steps_per_epoch,
        top1=evaluation.top1 if evaluation else None,
        top5=evaluation.top5 if evaluation else None,
        eval_loss=evaluation.loss if evaluation else None,
        eval_images=evaluation.images if evaluation else 0,
        train_images=meter.total.images,
        skipped_images=len(skipped),
        wall_seconds=wall_seconds,
        images_per_second=meter.total.images_per_second,
        data_share=data,
        compute_share=compute,
        comm_share=comm,
        world_size=parts.world.size,
        global_batch=parts.global_batch,
        resumed_from=run.resumed_from,
        checkpoint=str(run.checkpoint.relative_to(parts.folder)) if run.checkpoint else None,
    )
    if parts.world.rank == 0:
        write_result(result, parts.folder)
        if parts.show:
            show_result(result, parts.folder)
    ranks.barrier()  # a rank that ends with a code other than 0 ends the job: not before all is written
    return result
