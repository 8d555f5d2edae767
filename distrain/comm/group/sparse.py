"""The sum of sparse tensors: everybody gathers what the others have, and adds it up alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distrain.comm.buffers import Reduction
from distrain.comm.work import DistrainWork
from distrain.errors import CallError


def sparse_allreduce(
    allgather: Callable[[Any, Any], DistrainWork],
    ranks: int,
    tensor: torch.Tensor,
    reduction: Reduction,
) -> list[DistrainWork]:
    """Add sparse COO tensors of all ranks, in place. Blocks: how much to gather must be known first.

    Args:
        allgather: gathers a list of tensors, of lengths that differ, from the ranks.
        ranks: how many there are.
        tensor: of the same shape and type on all ranks; ends coalesced.
        reduction: SUM.

    Returns:
        What it was done with; complete.

    Raises:
        CallError: another reduction, or another layout than COO.
    """
    if reduction is not Reduction.SUM or tensor.layout is not torch.sparse_coo:
        raise CallError(
            "allreduce",
            f"op={reduction.value} of a tensor of layout={tensor.layout} is not offered",
            "sum COO tensors, or convert with to_dense()",
        )
    mine = tensor.detach().coalesce()
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(ranks)]
    allgather([counts], [torch.tensor([mine._nnz()])]).wait()
    lengths = [int(count) for count in counts]
    places = [torch.empty(n, tensor.sparse_dim(), dtype=torch.int64) for n in lengths]
    values = [torch.empty(n, *mine.values().shape[1:], dtype=tensor.dtype) for n in lengths]
    works = [
        allgather([places], [mine.indices().t().contiguous()]),
        allgather([values], [mine.values()]),
    ]
    for work in works:
        work.wait()
    total = torch.sparse_coo_tensor(torch.cat(places).t(), torch.cat(values), tensor.shape).coalesce()
    with torch.no_grad():  # not tensor.detach(): of a sparse tensor that is another tensor
        tensor.copy_(total)
    return works
