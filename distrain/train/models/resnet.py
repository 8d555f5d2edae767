"""Residual networks (He et al., arXiv 1512.03385), in the form that is trained today.

This is "v1.5": in a bottleneck the 3x3 convolution carries the stride, not the first 1x1, which
costs about 5 % more work and gains about half a percent of top-1. The last gamma of each block
may start at zero, so that every block starts as the identity (Goyal et al., arXiv 1706.02677, 5.1).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def batch_norm(channels: int) -> nn.Module:
    """Batch normalisation over the images of one rank's micro-batch."""
    return nn.BatchNorm2d(channels)


def group_norm(channels: int) -> nn.Module:
    """Group normalisation (Wu & He, arXiv 1803.08494): 32 groups, fewer where there are few channels.

    No image sees another, so the result does not depend on how a batch is cut over ranks.
    """
    return nn.GroupNorm(min(32, channels // 2), channels)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Residual block: ``relu(body(x) + shortcut(x))``.

    The body is two 3x3 convolutions (basic) or 1x1, 3x3, 1x1 with a four times wider output
    (bottleneck); its last normalisation is ``last_norm``.
    """

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        self.last_norm = norm(outputs)
        if bottleneck:
            self.body = nn.Sequential(
                _conv(inputs, width, 1), norm(width), nn.ReLU(inplace=True),
                _conv(width, width, 3, stride), norm(width), nn.ReLU(inplace=True),
                _conv(width, outputs, 1),
            )  # fmt: skip
        else:
            self.body = nn.Sequential(
                _conv(inputs, width, 3, stride), norm(width), nn.ReLU(inplace=True),
                _conv(width, outputs, 3),
            )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), norm(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``x: float [N, inputs, H, W]`` to ``[N, outputs, H/stride, W/stride]``."""
        result: Tensor = self.relu(self.last_norm(self.body(x)) + self.shortcut(x))
        return result


class ResNet(nn.Module):
    """Stem, stages of residual blocks, mean over the plane, one linear layer.

    Args:
        depths: blocks of each stage; from the second stage on a stage halves the plane and doubles
            the width.
        width: channels of the first stage.
        bottleneck: which kind of block.
        small_images: stem of one 3x3 convolution without stride, for images of about 32 pixels;
            else 7x7 with stride 2 and a max-pool, for about 224 pixels.
        num_classes: length of the output.
        norm: builds a normalisation layer for so many channels.
        zero_init_last_gamma: start every block as the identity.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        width: int,
        bottleneck: bool,
        small_images: bool,
        num_classes: int,
        norm: Norm,
        zero_init_last_gamma: bool,
    ) -> None:
        super().__init__()
        stem: list[nn.Module] = [_conv(3, width, 3) if small_images else _conv(3, width, 7, 2)]
        stem += [norm(width), nn.ReLU(inplace=True)]
        if not small_images:
            stem.append(nn.MaxPool2d(3, 2, padding=1))
        self.stem = nn.Sequential(*stem)
        stages, channels = [], width
        for number, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if number > 0 and i == 0 else 1
                blocks.append(Block(channels, width << number, stride, norm, bottleneck))
                channels = (width << number) * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, num_classes)
        self._initialise(zero_init_last_gamma)

    def _initialise(self, zero_init_last_gamma: bool) -> None:
        """He et al. for convolutions, normal(0, 0.01) for the last layer (Goyal et al., 5.1)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block) and zero_init_last_gamma:
                nn.init.zeros_(module.last_norm.weight)  # type: ignore[arg-type]
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``x: float [N, 3, H, W]`` to logits ``[N, num_classes]``."""
        result: Tensor = self.classify(self.pool(self.stages(self.stem(x))).flatten(1))
        return result
