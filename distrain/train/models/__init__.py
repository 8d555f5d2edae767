"""Models: ResNets that are built in, and those of torchvision and timm where they are installed."""

from distrain.train.models.registry import create

__all__ = ["create"]
