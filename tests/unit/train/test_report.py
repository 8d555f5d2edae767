from __future__ import annotations

import io
import json
import logging
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tensorboardX import SummaryWriter
from train_fakes import make_parts

from distrain.train import progress
from distrain.train.loop import train
from distrain.train.meter import Interval, Meter
from distrain.train.metrics import MetricsFile, TensorBoard, interval_record, to_json
from distrain.train.parts import Result
from distrain.train.report import show_result, write_result

RESULT = Result(
    status="completed", steps=240, epochs=12.0, top1=0.975, top5=1.0, eval_loss=0.25, eval_images=360,
    train_images=15_360, skipped_images=0, wall_seconds=75.4, images_per_second=1234.5, data_share=0.015,
    compute_share=0.9, comm_share=0.085, world_size=2, global_batch=64, resumed_from=None,
    checkpoint="checkpoints/x.pt",
)  # fmt: skip


class FakeClocks:
    wait_seconds = 0.0
    comm_seconds = 0.0
    steps_per_epoch = 1


def test_meter_weighs_losses_by_images_and_counts_only_while_running() -> None:
    clocks = FakeClocks()
    meter = Meter(clocks, lambda: clocks.comm_seconds, rank=0, world_size=1)  # type: ignore[arg-type]
    meter.add(1, torch.tensor(1.0), torch.tensor(2), 3)
    meter.add(2, torch.tensor(4.0), torch.tensor(1), 1)
    clocks.wait_seconds, clocks.comm_seconds = 5.0, 2.0
    with meter.paused():
        clocks.wait_seconds += 100  # while evaluating: not the training loop's wait
        interval = meter.read()
    assert (interval.steps, interval.images, interval.correct) == (2, 4, 3)
    assert interval.loss_sum / interval.images == pytest.approx(7 / 4)
    assert (interval.data_seconds, interval.comm_seconds) == (5.0, 2.0)
    with meter.paused():
        again = meter.read()
    assert (again.steps, again.images, again.data_seconds) == (0, 0, 0.0)
    assert meter.total.images == 4 and meter.total.data_seconds == 5.0


seconds = st.floats(0, 1e6)


@given(wall=seconds, data=seconds, comm=seconds)
def test_shares_add_up_to_one(wall: float, data: float, comm: float) -> None:
    shares = Interval(1, 1, wall_seconds=wall, data_seconds=data, comm_seconds=comm).shares()
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) == pytest.approx(1) or wall == data == comm == 0


def test_interval_record_in_numbers() -> None:
    interval = Interval(
        4, 64, loss_sum=32.0, correct=16, wall_seconds=2.0, data_seconds=0.5, comm_seconds=0.25
    )
    record = interval_record(20, 8, 0.1, 224, interval)
    record.pop("time")
    assert record == {
        "kind": "train", "step": 20, "epoch": 2.5, "steps": 4, "images": 64, "loss": 0.5, "top1": 0.25,
        "lr": 0.1, "image_size": 224, "images_per_s": 32.0, "step_s": 0.5, "data_s": 0.125,
        "compute_s": 0.3125, "comm_s": 0.0625, "data_share": 0.25,
        "compute_share": 0.625, "comm_share": 0.125,
    }  # fmt: skip


def test_json_has_no_nan() -> None:
    assert json.loads(to_json({"a": math.nan, "b": math.inf, "c": 1.5})) == {"a": None, "b": None, "c": 1.5}


def test_metrics_file_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')  # the last line was cut by a kill
    file = MetricsFile(path, last_step=2)
    file.write({"step": 3, "again": True})
    file.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda self, *values: told.append(values))
    board = TensorBoard(tmp_path, 0)
    board.write({"kind": "eval", "time": 1.0, "step": 7, "top1": 0.5, "images": 9})
    board.close()
    assert told == [("eval/top1", 0.5, 7), ("eval/images", 9, 7)]


def test_result_file_holds_every_field(tmp_path: Path) -> None:
    written = json.loads(write_result(RESULT, tmp_path).read_text())
    assert written == {field.name: getattr(RESULT, field.name) for field in fields(Result)}


def table(result: Result) -> str:
    out = io.StringIO()
    show_result(result, Path("runs/digits"), Console(file=out, width=100))
    return out.getvalue()


def test_final_table() -> None:
    text = table(RESULT)
    for words in (
        "97.50% of 360 held-out images", "100.00%", "1 min 15 s", "runs/digits",
        "data 1.5%, compute 90.0%, communication 8.5%", "240 steps (12 epochs), ranks: 2, global batch 64",
    ):  # fmt: skip
        assert words in text
    assert "skipped" not in text


def test_final_table_of_a_stopped_run_says_what_to_do() -> None:
    values: dict[str, Any] = {**vars(RESULT), "status": "stopped", "top1": None, "top5": None}
    text = table(Result(**{**values, "skipped_images": 3}))
    assert "top-1" not in text and "--resume" in text and "3 images that did not decode" in text


@pytest.mark.parametrize(("said", "expected"), [("1", True), ("0", False), (None, False)])
def test_who_says_that_there_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch, said: str | None, expected: bool
) -> None:
    monkeypatch.delenv("DISTRAIN_TERMINAL", raising=False)
    if said:
        monkeypatch.setenv("DISTRAIN_TERMINAL", said)
    assert progress.on_terminal() == expected  # under pytest stderr is no terminal


def test_plain_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    monkeypatch.setenv("DISTRAIN_TERMINAL", "0")
    with caplog.at_level(logging.INFO):
        train(make_parts(tmp_path, show=True, train={"duration": "6st"}))
    lines = [r.getMessage() for r in caplog.records if r.name == "distrain.train.progress"]
    assert lines[0].startswith("step 4 (epoch 1.00): loss ") and "images/s, data " in lines[0]
    assert any("evaluation on 23 images: top-1" in line for line in lines)
    printed = capsys.readouterr()
    assert "Training completed" in printed.out and printed.err == ""


def test_bar_goes_to_stderr_and_leaves_stdout_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DISTRAIN_TERMINAL", "1")
    monkeypatch.setenv("COLUMNS", "200")
    train(make_parts(tmp_path, show=True, train={"duration": "6st"}))
    printed = capsys.readouterr()
    assert "evaluation on 23 images" in printed.err and "6/6" in printed.err and "images/s" in printed.err
    assert printed.out.startswith("Training completed") and "images/s, loss" not in printed.out


def test_other_ranks_write_and_show_nothing(tmp_path: Path, capsys: Any) -> None:
    train(make_parts(tmp_path, rank=1, world_size=2, show=True, train={"duration": "2st"}))
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""
