"""The sleeping model: its gradients tell ranks apart, and its backward takes its time, not the core's."""

from __future__ import annotations

import time

import pytest
import torch

from distrain.bench.ddp import LAYERS, Sleeper, sleeping


def test_every_gradient_is_the_input() -> None:
    model = Sleeper([3, 5], 0.0)
    model(torch.tensor(7.0, requires_grad=True)).backward()
    assert [parameter.grad.tolist() for parameter in model.weights if parameter.grad is not None] == [
        [7.0] * 3,
        [7.0] * 5,
    ]


def test_backward_sleeps_as_long_as_told_without_the_core() -> None:
    work = sleeping("", 4 * 1000 * LAYERS, 0.25, rank=2)
    assert work.sizes == [1000] * LAYERS
    wall, cpu = time.perf_counter(), time.process_time()
    work.step(work.model)
    assert time.perf_counter() - wall >= 0.25
    assert time.process_time() - cpu < 0.25
    assert all(p.grad is not None and p.grad.unique().tolist() == [3.0] for p in work.model.parameters())


def test_it_can_have_the_layers_of_a_real_model() -> None:
    work = sleeping("resnet18", 0, 0.0, rank=0)
    assert sum(work.sizes) == 11_689_512  # as torchvision counts them


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3, 4]])
def test_time_is_spread_by_size(sizes: list[int]) -> None:
    model = Sleeper(sizes, 1.0)
    assert sum(model._seconds) == pytest.approx(1.0)
    assert model._seconds[-1] == pytest.approx(sizes[-1] / sum(sizes))
