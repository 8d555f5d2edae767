"""What the ranks do in test_ranks.py, over gloo: ``python train_ranks.py FOLDER``, for worlds of 2 and 3.

The ranks are forked after the imports, which are most of their work.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from train_fakes import FakeBatch, FakeLoader, eval_batches, make_parts, pictures

from distrain.errors import DistrainError
from distrain.train.errors import CheckpointError
from distrain.train.evaluate import evaluate
from distrain.train.loop import train
from distrain.train.models import create
from distrain.train.parts import Parts
from distrain.train.preprocess import Preprocess
from distrain.train.ranks import BEAT_SECONDS, by_first
from distrain.train.settings import ModelSettings

RANK, WORLD, FOLDER = 0, 1, Path()  # each rank sets its own


class Interrupting(FakeLoader):
    """Does something on one rank before a step of the first epoch."""

    def __init__(self, at: int, who: int, act: Callable[[], object]) -> None:
        super().__init__(pictures(67), 12, RANK, WORLD)
        self.at, self.who, self.act = at, who, act

    def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[FakeBatch]:
        for step, batch in enumerate(super().epoch(epoch, start_step), start=start_step):
            if epoch == 0 and step == self.at and self.who == RANK:
                self.act()
            yield batch


def parts(name: str, **changes: Any) -> Parts:
    # Every rank has a folder of its own: nothing may depend on a shared one.
    return make_parts(FOLDER / f"{name}-rank{RANK}", RANK, WORLD, **changes)


def fingerprint(model: nn.Module) -> list[float]:
    return [p.double().sum().item() for p in model.parameters()]


def parity(norm: str) -> dict[str, Any]:
    run = parts(
        f"parity-{norm}", norm=norm, train={"duration": "6st", "log_every": "1st", "eval_every": "6st"}
    )
    result = train(run)
    losses = []
    if RANK == 0:
        lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
        losses = [line["loss"] for line in lines if line["kind"] == "train"]
    return {"losses": losses, "weights": fingerprint(run.model), "images": result.train_images}


def evaluation(count: int) -> dict[str, Any]:
    model = create(ModelSettings(name="resnet8", zero_init_last_gamma=False), 4, seed=2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.1 + RANK  # only those of rank 0 may count
    preprocess = Preprocess(torch.device("cpu"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    found = evaluate(model, eval_batches(pictures(count, seed=4), 3, RANK, WORLD), preprocess)
    assert found is not None
    return {
        "images": found.images,
        "correct1": found.correct1,
        "correct5": found.correct5,
        "loss": found.loss,
    }


def stop() -> dict[str, Any]:
    loader = Interrupting(2, WORLD - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = train(parts("stop", loader=loader, global_batch=12, train={"duration": "40st"}))
    return {"status": result.status, "steps": result.steps, "exit": result.exit_code}


def error_of(run: Parts) -> str:
    try:
        train(run)
    except DistrainError as error:
        return f"{type(error).__name__} {error}"
    return "none"


def not_finite() -> str:
    run = parts("nan", global_batch=12)

    def poison() -> None:
        run.model.get_parameter("classify.bias").data.fill_(float("nan"))

    loader = Interrupting(1, 1, poison)
    return error_of(parts("nan", model=run.model, loader=loader, global_batch=12))


def no_room() -> str:
    run = parts("full")
    (run.folder / "checkpoints").write_text("in the way")
    return error_of(run)


def patient() -> dict[str, Any]:
    """Rank 0 takes its time, twice: the others see it in several short collectives, then its limit passes."""
    late = CheckpointError("here", "too late", "hurry")
    told: dict[str, Any] = {}
    calls: list[object] = []
    broadcast = dist.broadcast

    def counted(*words: Any, **named: Any) -> Any:
        calls.append(None)
        return broadcast(*words, **named)

    dist.broadcast = counted
    try:
        told["result"] = by_first(RANK, lambda: time.sleep(3 * BEAT_SECONDS) or "done", 60.0, late)
        told["collectives"] = len(calls)
        by_first(RANK, lambda: time.sleep(60), BEAT_SECONDS, late)
    except DistrainError as error:
        told["error"] = str(error)
    finally:
        dist.broadcast = broadcast
    return told


def resume() -> dict[str, Any]:
    def with_dropout(name: str, **changes: Any) -> Parts:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4))
        return parts(name, model=model, global_batch=12, **changes)

    whole = with_dropout("whole")
    train(whole)
    train(with_dropout("cut", loader=Interrupting(3, 1, lambda: os.kill(os.getpid(), signal.SIGUSR1))))
    resumed = with_dropout("cut", resume=True)
    result = train(resumed)
    equal = torch.equal(resumed.model[2].weight, whole.model[2].weight)  # type: ignore[index, arg-type]
    return {"from": result.resumed_from, "equal": equal, "weights": fingerprint(resumed.model)}


def run(rank: int, size: int, folder: Path) -> None:
    global RANK, WORLD, FOLDER
    RANK, WORLD, FOLDER = rank, size, folder
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{FOLDER}/store", rank=RANK, world_size=WORLD)
    told: dict[str, Any] = {"evaluation": {count: evaluation(count) for count in (23, 2)}}
    if WORLD == 2:
        told |= {"parity": {norm: parity(norm) for norm in ("group", "batch")}}
    else:
        told |= {
            "patient": patient(),
            "stop": stop(),
            "not_finite": not_finite(),
            "no_room": no_room(),
            "resume": resume(),
        }
    (FOLDER / f"rank{RANK}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path) -> int:
    importlib.import_module("torch._dynamo")  # DistributedDataParallel wants it
    fork = multiprocessing.get_context("fork")
    ranks = []
    for size in (2, 3):
        (folder / str(size)).mkdir()
        ranks += [fork.Process(target=run, args=(rank, size, folder / str(size))) for rank in range(size)]
    for process in ranks:
        process.start()
    running = list(ranks)
    while running and not any(process.exitcode for process in ranks):
        multiprocessing.connection.wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
    for process in running:  # they would wait for the one that failed
        process.kill()
    return int(any(process.exitcode for process in ranks))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
