from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from distrain.errors import ConfigError
from distrain.train.device import pick_device
from distrain.train.models import create
from distrain.train.preprocess import Preprocess
from distrain.train.recipe import LearningRate, cross_entropy, make_optimizer
from distrain.train.settings import ModelSettings, OptimizerSettings, TrainSettings
from distrain.world import World


def test_weight_decay_spares_norms_and_biases() -> None:
    model = create(ModelSettings(name="resnet8"), 10)
    optimizer = make_optimizer(model, OptimizerSettings(weight_decay=0.25), 0.5)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0.25 for p in g["params"]}
    spared = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0.0 for p in g["params"]}
    weights = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert decayed == weights
    assert spared == {id(p) for p in model.parameters()} - weights
    assert all(g["lr"] == 0.5 for g in optimizer.param_groups)


def test_imagenet_recipe_at_its_landmarks() -> None:
    rate = LearningRate(TrainSettings(), steps_per_epoch=100, global_batch=2048)
    # 0.1 for 256 images is 0.8 for 2048; warm-up over 5 epochs, tenths at epochs 30, 60 and 80
    expected = {0: 0.1, 250: 0.45, 500: 0.8, 2999: 0.8, 3000: 0.08, 6000: 0.008, 8000: 0.0008}
    for step, value in expected.items():
        assert rate(step) == pytest.approx(value), step


def test_small_batches_do_not_start_above_their_rate() -> None:
    rate = LearningRate(TrainSettings(), steps_per_epoch=10, global_batch=64)
    assert rate(0) == rate(25) == rate.peak == 0.025


@given(
    decay=st.sampled_from(["step", "cosine", "constant"]),
    steps_per_epoch=st.integers(1, 50),
    warmup=st.integers(0, 60),
    batch=st.integers(1, 10_000),
)
def test_rate_rises_through_the_warmup_then_never_again(
    decay: str, steps_per_epoch: int, warmup: int, batch: int
) -> None:
    settings = TrainSettings(duration="10ep", schedule={"warmup": f"{warmup}st", "decay": decay})
    rate = LearningRate(settings, steps_per_epoch, batch)
    values = [rate(step) for step in range(10 * steps_per_epoch + 70)]
    rising, falling = values[:warmup], values[warmup:]
    assert all(b >= a - 1e-12 * a for a, b in itertools.pairwise(rising))
    assert all(b <= a + 1e-12 * a for a, b in itertools.pairwise(falling))
    assert all(0 <= value <= rate.peak * (1 + 1e-12) for value in values)


def test_cosine_ends_at_zero_and_passes_half_in_the_middle() -> None:
    settings = TrainSettings(duration="100st", schedule={"warmup": "20st", "decay": "cosine"})
    rate = LearningRate(settings, 10, 256)
    assert rate(20) == pytest.approx(0.1)
    assert rate(60) == pytest.approx(0.05)
    assert rate(100) == pytest.approx(0.0, abs=1e-12)


def test_label_smoothing_in_numbers() -> None:
    logits = torch.tensor([[2.0, 0.0]], dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2)
    log_sum = math.log(math.exp(2) + 1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.9 * (log_sum - 2) + 0.1 * log_sum, rel=1e-6)


@pytest.mark.parametrize("channels_last", [True, False])
def test_preprocess_normalises_each_channel(channels_last: bool) -> None:
    images = torch.randint(0, 256, (3, 5, 4, 3), dtype=torch.uint8)
    original = images.clone()
    mean, std = (0.5, 0.25, 0.75), (0.1, 0.2, 0.4)
    preprocess = Preprocess(torch.device("cpu"), mean, std, channels_last)
    moved, labels = preprocess.move(images, torch.arange(3))
    planes = preprocess.normalise(moved)
    assert planes.shape == (3, 3, 5, 4) and planes.dtype == torch.float32
    for channel in range(3):
        expected = (original[..., channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(planes[:, channel].double(), expected, atol=1e-5, rtol=1e-5)
    assert planes.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert torch.equal(images, original) and labels.tolist() == [0, 1, 2]


def test_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", World.alone()) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"train\.device: cuda, but torch .* sees no GPU"):
        pick_device("cuda", World.alone())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": {"nesterov": True, "momentum": 0}}, "needs momentum"),
        ({"std": (1, 0, 1)}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainSettings(**settings)  # type: ignore[arg-type]
