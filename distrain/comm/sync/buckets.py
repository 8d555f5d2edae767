"""The buckets in which DDP sends gradients, in the words of DDP."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

_EACH, _ALL = "bucket_cap_mb_list", "bucket_cap_mb"
_MIB = 1 << 20


def ddp_arguments(
    module: Module, advise: Callable[[Sequence[int]], list[int]], keeps_order: bool = False
) -> dict[str, Any]:
    """Return the arguments for `DistributedDataParallel`.

    Args:
        module: what is trained.
        advise: returns the bytes of the buckets for gradients of these bytes, in the order of backward.
        keeps_order: DDP does not order the gradients anew after the first step, but fills the buckets in the
            order of the parameters, and sends the last one first.
    """
    buckets = advise(_gradient_sizes(module))
    if not buckets:
        return {}
    if _takes_each():
        return {_EACH: [size / _MIB for size in (reversed(buckets) if keeps_order else buckets)]}
    return {_ALL: max(buckets) / _MIB}


def _takes_each() -> bool:
    """Return whether DDP takes a size for each bucket: an older one does not, nor its reducer in Python."""
    import torch._dynamo  # seconds, which DDP takes anyway, but not programs that do without it

    if torch._dynamo.config.optimize_ddp == "python_reducer":
        return False
    return _EACH in inspect.signature(DistributedDataParallel.__init__).parameters


def largest_bytes(arguments: Mapping[str, Any]) -> int:
    """Return the bytes of the largest bucket of such arguments; DDP fills one with at least as many."""
    sizes = arguments.get(_EACH) or [arguments.get(_ALL, 25)]
    return round(max(sizes) * _MIB)


def _gradient_sizes(module: Module) -> list[int]:
    """Return the bytes of each gradient, in the order in which a backward pass makes them, roughly.

    DDP has buckets for each type of element, and cuts those of all types at the same sizes: only the type of
    most of the gradients counts.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    of_type: Counter[Any] = Counter()
    for parameter in trained:
        of_type[parameter.dtype] += parameter.nbytes
    usual = max(of_type, key=lambda dtype: of_type[dtype], default=None)
    return [parameter.nbytes for parameter in reversed(trained) if parameter.dtype == usual]
