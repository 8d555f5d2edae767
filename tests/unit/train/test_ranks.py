"""Training on 2 and 3 ranks over gloo: the laws that hold whatever carries the gradients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from train_fakes import eval_batches, make_parts, pictures

from distrain.errors import ConfigError
from distrain.train.evaluate import Evaluation, evaluate
from distrain.train.loop import train
from distrain.train.models import create
from distrain.train.preprocess import Preprocess
from distrain.train.settings import ModelSettings

Told = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each rank of train_ranks.py has to tell: ``SIZE/rankR.json``."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("train_ranks.py")
    # gloo takes the address of the host's name, which may not be a loopback one, unless told.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, errors
    return folder


def tell(folder: Path, size: int) -> Told:
    return [json.loads((folder / str(size) / f"rank{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def two(folder: Path) -> Told:
    return tell(folder, 2)


@pytest.fixture(scope="module")
def three(folder: Path) -> Told:
    return tell(folder, 3)


@pytest.mark.parametrize(("norm", "accumulate"), [("group", 1), ("batch", 2)])
def test_two_ranks_are_one_rank_with_twice_the_batch(
    two: Told, tmp_path: Path, norm: str, accumulate: int
) -> None:
    """With batch norm the one rank must normalise each half of its batch on its own."""
    changes = {"duration": "6st", "log_every": "1st", "eval_every": "6st", "accumulate": accumulate}
    alone = make_parts(tmp_path, norm=norm, train=changes)
    train(alone)
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    told = two[0]["parity"][norm]
    assert len(losses) == 6 and losses[0] != losses[-1]
    assert told["losses"] == pytest.approx(losses, rel=1e-4)
    assert told["weights"] == two[1]["parity"][norm]["weights"]
    expected = [p.double().sum().item() for p in alone.model.parameters()]
    assert told["weights"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert told["images"] == 96  # 6 steps of 16, over both ranks


def evaluate_alone(count: int) -> Evaluation:
    model = create(ModelSettings(name="resnet8", zero_init_last_gamma=False), 4, seed=2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.1
    preprocess = Preprocess(torch.device("cpu"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    found = evaluate(model, eval_batches(pictures(count, seed=4), 3), preprocess)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [23, 2])  # 2: the third rank has no image
def test_evaluation_is_the_same_on_any_number_of_ranks(two: Told, three: Told, count: int) -> None:
    alone = evaluate_alone(count)
    assert alone.images == alone.correct5 == count
    for told in (*two, *three):
        found = told["evaluation"][str(count)]
        assert (found["images"], found["correct1"], found["correct5"]) == (count, alone.correct1, count)
        assert found["loss"] == pytest.approx(alone.loss, rel=1e-6)


def test_evaluation_leaves_the_mode_and_needs_images() -> None:
    model = create(ModelSettings(name="resnet8"), 4).train()
    preprocess = Preprocess(torch.device("cpu"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    evaluate(model, eval_batches(pictures(4), 4), preprocess)
    assert model.training
    with pytest.raises(ConfigError, match=r"data\.val: the held-out set gave no image"):
        evaluate(model, [], preprocess)


def test_all_ranks_stop_after_the_same_step_when_one_is_asked_to(three: Told) -> None:
    told = [rank["stop"] for rank in three]
    assert told[0] == told[1] == told[2]
    assert told[0]["status"] == "stopped" and told[0]["exit"] == 85
    assert told[0]["steps"] in (3, 4)  # asked during step 3, at most one step late


def test_a_loss_that_is_not_finite_is_named_by_all_ranks(three: Told) -> None:
    for rank in three:
        assert rank["not_finite"].startswith("TrainingError step 2, rank 1: the loss is not finite")


def test_a_checkpoint_that_rank_0_cannot_write_ends_all_ranks(three: Told) -> None:
    assert len({rank["no_room"] for rank in three}) == 1
    assert three[2]["no_room"].startswith("CheckpointError")
    assert "File exists" in three[2]["no_room"]


def test_ranks_wait_for_rank_0_in_short_collectives(three: Told) -> None:
    told = [rank["patient"] for rank in three]
    assert [each["result"] for each in told] == ["done", None, None]
    assert len({each["collectives"] for each in told}) == 1 and told[0]["collectives"] >= 3
    assert {each["error"] for each in told} == {"here: too late; hurry"}


def test_every_rank_resumes_its_own_random_state(three: Told) -> None:
    for rank in three:
        assert rank["resume"]["from"] in (4, 5) and rank["resume"]["equal"]
        assert rank["resume"]["weights"] == three[0]["resume"]["weights"]
