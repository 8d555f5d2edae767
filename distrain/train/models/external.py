"""Models of torchvision and timm, where they are installed."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from distrain.errors import ConfigError, nearest


def create_external(source: str, name: str, num_classes: int) -> nn.Module:
    """Build model `name` of library `source` with fresh weights.

    Raises:
        ConfigError: the library cannot be imported, or has no model of that name.
    """
    library = _import(source)
    names = [str(known) for known in library.list_models()]
    if name not in names:
        raise ConfigError(
            "model.name",
            f"{name!r} is not a model of {source}{nearest(name, names)}",
            f"choose one of the {len(names)} names that {library.__name__}.list_models() returns",
        )
    if source == "torchvision":
        model = library.get_model(name, weights=None, num_classes=num_classes)
    else:
        model = library.create_model(name, pretrained=False, num_classes=num_classes)
    if not isinstance(model, nn.Module):
        raise ConfigError("model.name", f"{source}:{name} is not a torch module", "choose another model")
    return model


def _import(source: str) -> Any:
    module = {"torchvision": "torchvision.models", "timm": "timm"}[source]
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        # RuntimeError and OSError: installed, but built for another torch (compiled operators missing).
        raise ConfigError(
            "model.name",
            f"{source} cannot be imported ({error})",
            f"install a {source} that fits this torch, or use a built-in model such as resnet50",
        ) from error
