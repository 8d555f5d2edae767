from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distrain.errors import ConfigError
from distrain.train.models import create
from distrain.train.models.registry import RESNETS
from distrain.train.models.resnet import Block
from distrain.train.settings import ModelSettings


# Trainable parameters for 1000 classes, as published for these networks.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    model = create(ModelSettings(name=name), 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_deep_resnets_have_their_parameters_without_allocating_them() -> None:
    for name, parameters in {"resnet101": 44_549_160, "resnet152": 60_192_808}.items():
        with torch.device("meta"):
            model = create(ModelSettings(name=name, channels_last=False), 1000)
        assert sum(p.numel() for p in model.parameters()) == parameters


def test_bottleneck_carries_its_stride_in_the_3x3_convolution() -> None:
    block = create(ModelSettings(name="resnet50"), 10).stages[1][0]
    convolutions = [m for m in block.body if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.stride[0]) for c in convolutions] == [(1, 1), (3, 2), (1, 1)]


@pytest.mark.parametrize(("name", "side", "last"), [("resnet50", 64, 2), ("resnet8", 32, 8)])
def test_output_and_last_plane(name: str, side: int, last: int) -> None:
    model = create(ModelSettings(name=name), 7).eval()
    images = torch.randn(2, 3, side, side)
    assert model.stages(model.stem(images)).shape[2:] == (last, last)
    assert model(images).shape == (2, 7)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_zero_last_gamma_makes_blocks_start_as_the_identity(zero: bool, norm: str) -> None:
    model = create(ModelSettings(name="resnet8", norm=norm, zero_init_last_gamma=zero), 7)
    first = next(m for m in model.modules() if isinstance(m, Block))
    x = torch.rand(2, 16, 8, 8)  # not negative: relu leaves it as it is
    assert torch.equal(first(x), x) == zero


def test_group_norm_treats_each_image_on_its_own() -> None:
    model = create(ModelSettings(name="resnet8", norm="group", zero_init_last_gamma=False), 7)
    images = torch.randn(6, 3, 16, 16)
    torch.testing.assert_close(model(images)[:2], model(images[:2]))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_weights_follow_the_seed_and_leave_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = (create(ModelSettings(name="resnet8"), 10, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["classify.weight"], c["classify.weight"])


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(channels_last: bool) -> None:
    model = create(ModelSettings(name="resnet8", channels_last=channels_last), 10)
    weight = model.stages[1][0].body[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"'resnet5o' .*did you mean 'resnet50'.*timm:NAME"):
        ModelSettings(name="resnet5o")
    assert set(RESNETS) == {"resnet8", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"}


def fake_library(monkeypatch: pytest.MonkeyPatch, name: str, builder: str) -> None:
    library = ModuleType(name)
    library.list_models = lambda: ["tinynet", "vit_small"]  # type: ignore[attr-defined]

    def build(name: str, num_classes: int, weights: None = None, pretrained: bool = False) -> nn.Module:
        assert weights is None and not pretrained
        return nn.Linear(3, num_classes)

    setattr(library, builder, build)
    monkeypatch.setitem(sys.modules, name, library)


@pytest.mark.parametrize(
    ("source", "module", "builder"),
    [("torchvision", "torchvision.models", "get_model"), ("timm", "timm", "create_model")],
)
def test_models_of_other_libraries(
    monkeypatch: pytest.MonkeyPatch, source: str, module: str, builder: str
) -> None:
    monkeypatch.setitem(sys.modules, source, ModuleType(source))
    fake_library(monkeypatch, module, builder)
    assert create(ModelSettings(name=f"{source}:tinynet"), 12).out_features == 12
    with pytest.raises(ConfigError, match="did you mean 'tinynet'"):
        create(ModelSettings(name=f"{source}:tinynett"), 12)
    with pytest.raises(ConfigError, match=r"model\.norm"):
        create(ModelSettings(name=f"{source}:tinynet", norm="group"), 12)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    for name in (source, f"{source}.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"{source} cannot be imported .*install a {source} that fits"):
        create(ModelSettings(name=f"{source}:anything"), 12)
