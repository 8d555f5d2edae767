"""The sum of sparse tensors: everybody gathers what the others have, and adds it up alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from distrain.comm.buffers import Reduction
from distrain.comm.work import DistrainWork
from distrain.errors import CallError

if TYPE_CHECKING:
    from distrain.comm.group.reductions import Reductions


def sparse_allreduce(
    group: Reductions, tensor: torch.Tensor, reduction: Reduction, opts: Any
) -> DistrainWork:
    """Add sparse COO tensors of all ranks, in place. Blocks: how much to gather must be known first.

    Args:
        group: the ranks.
        tensor: of the same shape and type on all ranks; ends coalesced.
        reduction: SUM.
        opts: torch's options of a gather.

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
    ranks = group.size()
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(ranks)]
    group.allgather([counts], [torch.tensor([mine._nnz()])], opts).wait()
    lengths = [int(count) for count in counts]
    places = [torch.empty(n, tensor.sparse_dim(), dtype=torch.int64) for n in lengths]
    values = [torch.empty(n, *mine.values().shape[1:], dtype=tensor.dtype) for n in lengths]
    works = [
        group.allgather([places], [mine.indices().t().contiguous()], opts),
        group.allgather([values], [mine.values()], opts),
    ]
    for work in works:
        work.wait()
    total = torch.sparse_coo_tensor(torch.cat(places).t(), torch.cat(values), tensor.shape).coalesce()
    with torch.no_grad():  # not tensor.detach(): of a sparse tensor that is another tensor
        tensor.copy_(total)
    return DistrainWork.joined(group._wire.engine, works, [tensor])
