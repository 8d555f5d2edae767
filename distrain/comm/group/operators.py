"""Functional operators that torch has for its own backends only, for groups of this one.

Their C++ asks a group for a backend, and a group in Python has none. The other functional operators call
the group itself.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _register_work
from torch.distributed import distributed_c10d as c10d

_NAMESPACE = "_c10d_functional"
_DEVICES = ("CPU", "CUDA")
_library: Any = None  # its end would take the kernels back


def _all_gather_into_tensor_out(
    group: Any, input: torch.Tensor, group_size: int, name: Any, *, out: torch.Tensor
) -> torch.Tensor:
    _register_work(out, group.all_gather_single(out, input))
    return out


def _batch_p2p_ops(
    group: Any, kinds: list[str], peers: list[int], tags: list[int], tensors: list[torch.Tensor], name: Any
) -> list[torch.Tensor]:
    results = []
    for kind, peer, tag, tensor in zip(kinds, peers, tags, tensors, strict=True):
        if kind == "irecv":
            work, result = group.recv([tensor], peer, tag), tensor
        else:
            work, result = group.send([tensor], peer, tag), tensor.new_empty(0)
        _register_work(result, work)
        results.append(result)
    return results


def open_operators(kind: type[dist.ProcessGroup]) -> None:
    """Give these operators a kernel for groups of this kind; other groups keep torch's. Once a process."""
    global _library
    find = getattr(torch.library, "get_kernel", None)
    if _library is not None or find is None:
        return
    _library = torch.library.Library(_NAMESPACE, "IMPL")
    for name, ours in (
        ("all_gather_into_tensor_out", _all_gather_into_tensor_out),
        ("batch_p2p_ops", _batch_p2p_ops),
    ):
        if not hasattr(getattr(torch.ops, _NAMESPACE), name):
            continue  # an older torch
        for device in _DEVICES:
            _put(name, device, kind, ours, find(f"{_NAMESPACE}::{name}", device))


def _put(name: str, device: str, kind: type[dist.ProcessGroup], ours: Any, torchs: Any) -> None:
    def kernel(keys: Any, *args: Any, **words: Any) -> Any:
        group = args[-1]
        if isinstance(group, str):
            group = c10d._resolve_process_group(group)  # type: ignore[arg-type]
        if isinstance(group, kind):
            return ours(group, *args, **words)
        return torchs.call_boxed(keys, *args, **words)

    _library.impl(name, kernel, device, with_keyset=True)
