from __future__ import annotations

import json
import logging
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_fakes import FakeBatch, FakeLoader, eval_batches, make_parts, pictures

from distrain.errors import EXIT_STOPPED, ConfigError
from distrain.train.checkpoint import listed, unpack
from distrain.train.errors import CheckpointError, TrainingError
from distrain.train.events import check_finite
from distrain.train.loop import batches, train
from distrain.train.models import create
from distrain.train.parts import Parts
from distrain.train.run import Run, prepare
from distrain.train.settings import ModelSettings
from distrain.units import Duration


def records(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind is None or line["kind"] == kind]


def weights(parts: Parts) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class InterruptingLoader(FakeLoader):
    """Does something just before it serves a step (counted from 0)."""

    def __init__(self, at: int, act: Any) -> None:
        super().__init__(pictures(67), 16)
        self.at, self.act = at, act

    def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[FakeBatch]:
        for step, batch in enumerate(super().epoch(epoch, start_step), start=start_step):
            if epoch * self.steps_per_epoch + step == self.at:
                self.act()
            yield batch


class Killed(BaseException):
    """As sudden as a kill: nothing in the product catches it."""


def kill() -> None:
    raise Killed


def test_a_run_learns_and_writes_its_folder(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, train={"duration": "10ep", "tensorboard": True, "eval_every": "2ep"})
    result = train(parts)
    assert result.status == "completed" and result.exit_code == 0
    assert (result.steps, result.epochs, result.train_images) == (40, 10.0, 640)
    assert result.eval_images == 23 and result.top1 == 1.0 and result.top5 == 1.0  # top-5 of 4 classes
    assert json.loads((tmp_path / "result.json").read_text())["top1"] == 1.0
    assert [r["step"] for r in records(tmp_path, "train")] == list(range(4, 41, 4))
    assert [r["step"] for r in records(tmp_path, "eval")] == [8, 16, 24, 32, 40]
    assert [r["step"] for r in records(tmp_path, "checkpoint")] == list(range(5, 41, 5))
    assert [p.name.split("-")[1] for p in listed(tmp_path / "checkpoints")] == [
        "000000040", "000000035", "000000030"
    ]  # fmt: skip
    assert list((tmp_path / "tensorboard").iterdir())
    assert parts.loader.served == [(epoch, step) for epoch in range(10) for step in range(4)]  # type: ignore[attr-defined]


def test_communication_that_nobody_can_time_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(make_parts(tmp_path, exposed_comm_seconds=None, show=True))
    line = records(tmp_path, "train")[0]
    assert line["comm_s"] is None and line["comm_share"] is None
    assert line["data_share"] + line["compute_share"] == pytest.approx(1)
    assert line["data_s"] + line["compute_s"] == pytest.approx(line["step_s"])
    assert math.isnan(result.comm_share) and "communication unknown" in capsys.readouterr().out


def test_step_time_is_split_by_who_waited(tmp_path: Path) -> None:
    clock = {"comm": 0.0}

    class Slow(FakeLoader):
        def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[FakeBatch]:
            for batch in super().epoch(epoch, start_step):
                self.wait_seconds += 50.0  # far longer than the steps really take
                clock["comm"] += 25.0
                yield batch

    loader = Slow(pictures(67), 16)
    result = train(make_parts(tmp_path, loader=loader, exposed_comm_seconds=lambda: clock["comm"]))
    line = records(tmp_path, "train")[0]
    assert (line["data_s"], line["comm_s"], line["compute_s"]) == (50.0, 25.0, 0.0)
    assert (result.data_share, result.comm_share) == pytest.approx((2 / 3, 1 / 3))
    assert sum((line["data_share"], line["compute_share"], line["comm_share"])) == pytest.approx(1)


@pytest.mark.parametrize("killed_at", [3, 6, 11])
def test_resume_after_a_kill_is_bit_identical(tmp_path: Path, killed_at: int) -> None:
    whole = make_parts(tmp_path / "whole")
    train(whole)

    with pytest.raises(Killed):
        train(make_parts(tmp_path / "cut", loader=InterruptingLoader(killed_at, kill)))
    resumed = make_parts(tmp_path / "cut", resume=True)
    result = train(resumed)
    assert result.resumed_from == {3: None, 6: 5, 11: 10}[killed_at]
    assert same(weights(resumed), weights(whole))
    told, expected = (
        [(r["kind"], r["step"], r.get("lr")) for r in records(tmp_path / name)] for name in ("cut", "whole")
    )
    assert told == expected  # no line twice, none missing
    assert records(tmp_path / "cut", "eval")[-1]["loss"] == records(tmp_path / "whole", "eval")[-1]["loss"]


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_random_layers_resume_bit_identical(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = WithDropout().state_dict()

    def parts(name: str, **changes: Any) -> Parts:
        model = WithDropout()
        model.load_state_dict(first)
        return make_parts(tmp_path / name, model=model, **changes)

    whole, resumed = parts("whole"), parts("cut", resume=True)
    train(whole)
    with pytest.raises(Killed):
        train(parts("cut", loader=InterruptingLoader(8, kill)))
    torch.manual_seed(77)
    assert train(resumed).resumed_from == 5
    assert same(weights(resumed), weights(whole))


def test_a_signal_stops_with_a_checkpoint_and_resumes_bit_identical(tmp_path: Path) -> None:
    whole = make_parts(tmp_path / "whole")
    train(whole)
    for number, at in ((signal.SIGTERM, 2), (signal.SIGUSR1, 6)):
        loader = InterruptingLoader(at, lambda n=number: os.kill(os.getpid(), n))
        result = train(make_parts(tmp_path / "cut", loader=loader, resume=True))
        assert (result.status, result.exit_code, result.steps) == ("stopped", EXIT_STOPPED, at + 1)
        assert result.top1 is None
        assert json.loads((tmp_path / "cut" / "result.json").read_text())["status"] == "stopped"
    resumed = make_parts(tmp_path / "cut", resume=True)
    assert train(resumed).resumed_from == 7
    assert same(weights(resumed), weights(whole))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make_parts(tmp_path, loader=InterruptingLoader(2, twice)))


def test_resuming_a_finished_run_repeats_nothing(tmp_path: Path) -> None:
    first = train(make_parts(tmp_path))
    told = records(tmp_path)
    again = train(make_parts(tmp_path, resume=True))
    assert (again.steps, again.resumed_from, again.train_images) == (12, 12, 0)
    assert (again.top1, again.top5, again.eval_images) == (first.top1, first.top5, first.eval_images)
    assert again.eval_loss == pytest.approx(first.eval_loss) and again.checkpoint == first.checkpoint
    assert records(tmp_path) == told
    other = train(make_parts(tmp_path, resume=True, config_digest="other"))  # perhaps other held-out images
    assert other.eval_loss == pytest.approx(first.eval_loss)
    assert [r["step"] for r in records(tmp_path, "eval")] == [6, 12, 12]


def test_the_evaluation_of_the_step_that_it_stopped_at_is_made_up_for(tmp_path: Path) -> None:
    loader = InterruptingLoader(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(make_parts(tmp_path / "cut", loader=loader)).steps == 6
    assert records(tmp_path / "cut", "eval") == []
    train(make_parts(tmp_path / "cut", resume=True))
    train(make_parts(tmp_path / "whole"))
    cut, whole = (
        [(r["step"], r["loss"]) for r in records(tmp_path / name, "eval")] for name in ("cut", "whole")
    )
    assert cut == whole and [step for step, _ in cut] == [6, 12]


@pytest.mark.parametrize("at", [1, 2])  # of the 6 and the 12: in the middle, and at the end of the run
def test_a_signal_gives_an_evaluation_up_and_the_resume_makes_it(tmp_path: Path, at: int) -> None:
    batches, rounds = eval_batches(pictures(23, seed=9), 8), []

    class Interrupting(list[FakeBatch]):
        def __iter__(self) -> Iterator[FakeBatch]:
            rounds.append(0)
            for batch in batches:
                rounds[-1] += 1
                if len(rounds) == at:
                    os.kill(os.getpid(), signal.SIGUSR1)
                yield batch

    result = train(make_parts(tmp_path / "cut", eval_loader=Interrupting()))
    assert rounds[-1] == 1  # of three batches
    assert (result.status, result.exit_code, result.steps) == ("stopped", EXIT_STOPPED, 6 * at)
    assert result.top1 is None and listed(tmp_path / "cut" / "checkpoints")[0].name.startswith(
        f"step-{6 * at:09d}"
    )
    told = [r["step"] for r in records(tmp_path / "cut", "train")]
    assert told == {1: [4, 6], 2: [4, 8, 12]}[at]  # also of the steps since the last line
    again = train(make_parts(tmp_path / "cut", resume=True))
    assert (again.status, again.exit_code, again.resumed_from) == ("completed", 0, 6 * at)
    whole = train(make_parts(tmp_path / "whole"))
    assert (again.top1, again.eval_loss) == (whole.top1, whole.eval_loss)
    assert [r["step"] for r in records(tmp_path / "cut", "eval")] == [6, 12]


def test_a_resume_that_is_stopped_while_it_evaluates_trains_no_step(tmp_path: Path) -> None:
    loader = InterruptingLoader(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train(make_parts(tmp_path, loader=loader))

    class Interrupting(list[FakeBatch]):
        def __iter__(self) -> Iterator[FakeBatch]:
            os.kill(os.getpid(), signal.SIGTERM)
            yield from eval_batches(pictures(23, seed=9), 8)

    result = train(make_parts(tmp_path, resume=True, eval_loader=Interrupting()))
    assert (result.status, result.steps, result.train_images) == ("stopped", 6, 0)
    assert (tmp_path / (result.checkpoint or "")).is_file()


def test_resuming_before_a_damaged_checkpoint_keeps_the_good_ones(tmp_path: Path) -> None:
    changes = {"duration": "12st", "checkpoint_every": "4st", "keep_checkpoints": 3}
    train(make_parts(tmp_path, train=changes))
    damaged = listed(tmp_path / "checkpoints")[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    changes |= {"checkpoint_every": "1st", "keep_checkpoints": 1}
    result = train(make_parts(tmp_path, resume=True, train=changes))
    assert result.resumed_from == 8 and result.status == "completed"
    assert [p.name for p in listed(tmp_path / "checkpoints")] == [Path(result.checkpoint or "").name]
    assert [r["step"] for r in records(tmp_path, "checkpoint")][-4:] == [9, 10, 11, 12]


def test_accumulation_changes_nothing_with_group_norm(tmp_path: Path) -> None:
    # 16 images as one batch, and as micro-batches of 6, 6 and 4.
    losses = []
    for accumulate in (1, 3):
        changes = {"duration": "4st", "log_every": "1st", "accumulate": accumulate}
        train(make_parts(tmp_path / str(accumulate), norm="group", train=changes))
        losses.append([r["loss"] for r in records(tmp_path / str(accumulate), "train")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_bf16_trains_with_fp32_weights(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, train={"precision": "bf16", "duration": "10ep"})
    assert train(parts).top1 == 1.0
    assert {p.dtype for p in parts.model.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_names_step_and_rank_and_writes_no_checkpoint(tmp_path: Path) -> None:
    model = create(ModelSettings(name="resnet8"), 4)
    loader = InterruptingLoader(6, lambda: model.classify.bias.data.fill_(float("nan")))
    parts = make_parts(
        tmp_path, model=model, loader=loader, train={"log_every": "100st", "eval_every": "0st"}
    )
    with pytest.raises(
        TrainingError, match=r"step 7, rank 0: the loss is not finite.*lower train\.optimizer"
    ):
        train(parts)
    assert [p.name.split("-")[1] for p in listed(tmp_path / "checkpoints")] == ["000000005"]


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_an_update_that_spoils_the_model_is_no_success(tmp_path: Path, lr: float) -> None:
    """The loss of the only step is finite; what its update has done shows afterwards."""
    changes = {"duration": "1st", "optimizer": {"lr": lr, "lr_batch": 16}, "schedule": {"warmup": "0st"}}
    with pytest.raises(TrainingError, match=r"step 1: the .* not finite, so training has diverged; lower"):
        train(make_parts(tmp_path, train=changes))
    assert listed(tmp_path / "checkpoints") == [] and not (tmp_path / "result.json").exists()


def test_parameters_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    model = create(ModelSettings(name="resnet8"), 4)

    def spoil() -> None:
        model.classify.weight.data[0, 0] = float("inf")

    parts = make_parts(tmp_path, model=model, train={"duration": "5st", "eval_every": "0st"})
    with pytest.raises(TrainingError, match="the parameters are not finite"):
        check_finite(spoiled(parts, spoil))
    assert check_finite(spoiled(make_parts(tmp_path), lambda: None)) is None  # type: ignore[func-returns-value]


def spoiled(parts: Parts, act: Any) -> Run:
    run = prepare(parts)
    act()
    return run


def test_batch_normalisation_of_a_single_value_is_explained(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4))
    parts = make_parts(tmp_path, model=model, global_batch=1, channels_last=False)
    with pytest.raises(ConfigError, match=r"one value a channel.*batch_per_rank.*norm=group"):
        train(parts)


def test_a_duration_of_less_than_a_step(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"0\.01ep of 4 steps an epoch is less than half a step; set train\.duration to 1st"
    ):
        train(make_parts(tmp_path, train={"duration": "0.01ep"}))


def test_other_checkpoints_are_not_overwritten(tmp_path: Path) -> None:
    train(make_parts(tmp_path))
    with pytest.raises(
        ConfigError, match=r"earlier run .*--resume auto .*DISTRAIN_RESUME=1 .*DISTRAIN_RUN_DIR"
    ):
        train(make_parts(tmp_path))


def test_resume_refuses_what_does_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_parts(tmp_path, config_digest="a"))
    with pytest.raises(CheckpointError, match=r"global batch 16, this run 32, .*resume with 1 ranks, or"):
        train(make_parts(tmp_path, resume=True, global_batch=32))
    packed_anew = FakeLoader(pictures(83), 16)
    with pytest.raises(
        CheckpointError, match=r"has 4 steps per epoch, this run 5 .*data\.train.*last_batch"
    ) as e:
        train(make_parts(tmp_path, resume=True, loader=packed_anew))
    assert "ranks" not in str(e.value)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        train(make_parts(tmp_path, resume=True, norm="group"))
    with caplog.at_level(logging.WARNING):
        train(make_parts(tmp_path, resume=True, config_digest="b", train={"duration": "14st"}))
    assert "configuration has changed" in caplog.text
    for path in listed(tmp_path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="all 3 checkpoints are damaged"):
        train(make_parts(tmp_path, resume=True))


def test_a_resume_takes_the_settings_of_the_optimizer_from_the_configuration(tmp_path: Path) -> None:
    train(make_parts(tmp_path, train={"duration": "5st"}))
    changed = {"lr": 0.1, "lr_batch": 16, "momentum": 0.5, "weight_decay": 1e-3, "nesterov": True}
    run = prepare(make_parts(tmp_path, resume=True, train={"optimizer": changed}))
    groups = run.optimizer.param_groups
    found = [(group["momentum"], group["weight_decay"], group["nesterov"]) for group in groups]
    assert found == [(0.5, 1e-3, True), (0.5, 0.0, True)]
    assert len(run.optimizer.state) == len(list(run.module.parameters()))  # momentum came along


def test_what_is_due_every_so_often_is_due_at_least_every_step(tmp_path: Path) -> None:
    run = prepare(make_parts(tmp_path))
    run.step = 3
    assert run.due(Duration.parse("0.1ep"))  # 0.4 of a step
    assert not run.due(Duration.parse("0ep")) and not run.due(Duration.parse("2st"))


def test_a_checkpoint_says_where_training_was(tmp_path: Path) -> None:
    train(make_parts(tmp_path, config_digest="abc", seed=3, train={"duration": "6st"}))
    state = unpack(listed(tmp_path / "checkpoints")[0].read_bytes())
    expected = {"step": 6, "epoch": 1, "step_in_epoch": 2, "steps_per_epoch": 4, "global_batch": 16,
                "world_size": 1, "seed": 3, "config_digest": "abc", "format": 1}  # fmt: skip
    assert {key: state[key] for key in expected} == expected
    assert set(state) == {*expected, "model", "optimizer", "random"}


def test_loaders_that_break_their_promise() -> None:
    with pytest.raises(TrainingError, match="epoch 0: the loader ended 1 steps before the end"):
        list(batches(ShortLoader(), 0, 8))


class ShortLoader(FakeLoader):
    def __init__(self) -> None:
        super().__init__(pictures(67), 16)

    def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[FakeBatch]:
        yield from list(super().epoch(epoch, start_step))[:-1]


def test_fewer_images_than_a_global_batch(tmp_path: Path) -> None:
    loader = FakeLoader(pictures(9), 16)
    with pytest.raises(ConfigError, match="fewer images than one global batch of 16; use a smaller"):
        train(make_parts(tmp_path, loader=loader))
