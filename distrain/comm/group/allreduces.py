"""allreduce: one call of C, in the calling thread, or by the engine; of one tensor or several."""


# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from distrain.comm import callbacks
from distrain.comm.buffers import FlatBuffer, Reduction, overlap
from distrain.comm.device.by_host import HostPayloads, held, is_plain, pieces
from distrain.comm.group import forms, modes
from distrain.comm.group.arguments import as_list, factor_of, limit, limited, reduction_of, scaled
from distrain.comm.group.quick import QuickCalls
from distrain.comm.group.sparse import sparse_allreduce
from distrain.comm.messages.plain import MpiOperation
from distrain.comm.operation import Operation
from distrain.comm.process.mpi import MPI
from distrain.comm.shared.caller import DONE
from distrain.comm.supervision.call import Call
from distrain.comm.work import DistrainWork
from distrain.errors import CallError


def _copied(payloads: HostPayloads, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of the contents as they are now, on the host."""
    source = payloads.read(tensor)
    return source.clone() if source.data_ptr() == tensor.data_ptr() else source


class Allreduces(QuickCalls):
    """allreduce in all its forms."""

    def allreduce(
        self,
        tensors: Any = None,
        opts: Any = None,
        timeout: Any = None,
        *,
        tensor: Any = None,
        op: Any = None,
    ) -> dist.Work:
        """Combine each tensor over all ranks, in place.

        Args:
            tensors: one, or a list.
            opts: torch's options; in a short form the operation, or nothing: sum.
            timeout: how long `wait` waits, in a short form.
            tensor: other name of `tensors`.
            op: other name of the operation.
        """
        wire, quick = self._wire, self._quick
        if (
            quick is not None
            and self._coalescing is None
            and callbacks.current() is None
            and not modes.are_on()
        ):
            work = self._by_c(wire, quick.tensors, tensors, opts)
            if work is not None:
                return work if work is DONE else limited(work, opts)
        if type(opts) is not dist.AllreduceOptions:
            words = {"tensor": tensor, "opts": opts, "op": op, "timeout": timeout}
            return self.allreduce(*forms.of_allreduce(tensors, **words))
        full = [as_list(tensors), opts]
        return limited(modes.seen(self, "allreduce", full, Allreduces._general_allreduce), opts)

    @forms.takes(forms.ALLREDUCE_COALESCED)
    def allreduce_coalesced(self, tensors: Any, opts: Any) -> dist.Work:
        """Combine each tensor over all ranks, in place; all are read before any is written."""
        found = [held(tensor) for tensor in as_list(tensors)]
        if not overlap(found):
            return limited(self._general_allreduce(found, opts), opts)
        reduction = reduction_of(opts)
        hosts = [HostPayloads() for _ in found]
        factors = [factor_of(opts, tensor.dtype) for tensor in found]
        copies = [  # all, then begin
            scaled(_copied(host, tensor), factor)
            for host, tensor, factor in zip(hosts, found, factors, strict=True)
        ]
        works = [self._allreduce_copy(*each, reduction) for each in zip(hosts, found, copies, strict=True)]
        return limited(self._join(works), opts)

    def _general_allreduce(self, tensors: Any, opts: Any) -> dist.Work:
        reduction, found = reduction_of(opts), [held(tensor) for tensor in as_list(tensors)]
        for factor, tensor in [(factor_of(opts, tensor.dtype), tensor) for tensor in found]:
            scaled(tensor, factor)
        awaited = getattr(opts, "asyncOp", True) is False and self._coalescing is None
        wire = self._wire
        if found[0].layout is not torch.strided:
            return self._join([self._sparse_allreduce(tensor, reduction) for tensor in found])
        within = wire.callback() is not None
        alone = len(found) == 1 and self._coalescing is None and not within
        if alone and wire.direct is not None and wire.direct.takes(found[0], reduction):
            return self._direct_allreduce(found[0], reduction, opts, awaited)
        works = [
            self._allreduce(tensor, reduction, awaited=awaited)
            if is_plain(tensor) or not isinstance(self._payloads(tensor, combines=True), HostPayloads)
            else self._in_pieces(tensor, lambda piece: self._allreduce(piece, reduction, awaited=awaited))
            for tensor in found
        ]
        if awaited and wire.routes is not None and not within:
            wire.routes.learn(found[0], reduction)
        return self._join(works)

    def _direct_allreduce(
        self, tensor: torch.Tensor, reduction: Reduction, opts: Any, awaited: bool
    ) -> dist.Work:
        wire = self._wire
        call = wire.number("allreduce", tensor.numel(), tensor.dtype, reduction)

        def sign(operation: Operation) -> None:
            wire.sign(operation, call)
            limit([operation], opts)

        work = wire.direct.allreduce(tensor, reduction, sign, lambda: call.cause(wire.members))
        if work is None:
            return self._allreduce(tensor, reduction, call, awaited)
        if not awaited:
            self._keep(work, [tensor])
        return work

    def allreduce_array(self, array: Any, name: str) -> bool:
        """Combine a numpy array or a tensor in place, if one call of C does it; else return False.

        Args:
            array: contiguous, in the memory of the CPU.
            name: of a `Reduction`.
        """
        wire, quick = self._wire, self._quick
        if quick is None or self._coalescing is not None or callbacks.current() is not None:
            return False
        work = self._by_c(wire, quick.array, array, name)
        return work is not None and work.wait()

    def _in_pieces(
        self, tensor: torch.Tensor, combine: Callable[[torch.Tensor], DistrainWork]
    ) -> DistrainWork:
        works = [combine(piece) for piece in pieces(tensor)]
        return works[0] if len(works) == 1 else DistrainWork.joined(self._wire.engine, works, [tensor])

    def _allreduce(
        self, tensor: torch.Tensor, reduction: Reduction, call: Call | None = None, awaited: bool = False
    ) -> DistrainWork:
        # The bucket of DDP lies where it is wanted: what makes copies is made only where there are any.
        payloads = None if is_plain(tensor) else self._payloads(tensor, combines=True)
        buffer = FlatBuffer(tensor) if payloads is None else payloads.buffer(payloads.update(tensor))
        buffer.check(reduction)  # before it counts
        kind = "allreduce" if payloads is None else payloads.kind("allreduce")
        call = call or self._wire.number(kind, tensor.numel(), tensor.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, call=call)
        return self._submit(payloads, operation, [tensor], awaited=awaited)

    def _allreduce_copy(
        self, payloads: HostPayloads, tensor: torch.Tensor, copy: torch.Tensor, reduction: Reduction
    ) -> DistrainWork:
        """Do the same with a copy of what the tensor held before."""
        result, buffer = payloads.write(tensor), FlatBuffer(copy)
        buffer.check(reduction)
        call = self._wire.number("allreduce", tensor.numel(), tensor.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, call=call)
        return self._submit(payloads, operation, [tensor], after=lambda: result.copy_(copy))

    def narrow_allreduce(self, tensor: torch.Tensor, wire_dtype: torch.dtype) -> DistrainWork:
        """Sum float32 over all ranks, in place, with 16 bits on the wire; see `messages/narrow.py`."""
        return self._in_pieces(tensor, lambda piece: self._narrow_allreduce(piece, wire_dtype))

    def _narrow_allreduce(self, tensor: torch.Tensor, wire_dtype: torch.dtype) -> DistrainWork:
        payloads = HostPayloads()
        buffer = FlatBuffer(payloads.update(tensor))
        call = self._wire.number("allreduce", buffer.count, wire_dtype, Reduction.SUM)
        operation = self._wire.reduction(buffer, Reduction.SUM, wire_dtype=wire_dtype, call=call)
        return self._submit(payloads, operation, [tensor])

    def mpi_allreduce(self, tensor: torch.Tensor) -> DistrainWork:
        """Sum over all ranks, in place, by the MPI library's own algorithm; in a callback by distrain's.

        Raises:
            CallError: MPI has no such type.
        """
        if tensor.dtype not in (torch.float32, torch.float64):
            raise CallError("allreduce by MPI", f"MPI has no {tensor.dtype}", "use comm.sync=distrain")
        if self._wire.callback() is not None:  # MPI's own collectives know order alone
            return self._allreduce(tensor, Reduction.SUM)
        payloads, comm = HostPayloads(), self._wire.comm
        data = payloads.update(tensor).reshape(-1).numpy()
        operation = MpiOperation(
            "allreduce", comm, lambda: [comm.Iallreduce(MPI.IN_PLACE, data, MPI.SUM)], data.nbytes
        )
        call = self._wire.number("allreduce", tensor.numel(), tensor.dtype, Reduction.SUM)
        self._wire.sign(operation, call)
        return self._submit(payloads, operation, [tensor])

    def _sparse_allreduce(self, tensor: torch.Tensor, reduction: Reduction) -> DistrainWork:
        gather: Callable[[Any, Any], Any] = self.allgather  # which `Reductions` has
        works = sparse_allreduce(gather, self.size(), tensor, reduction)
        return DistrainWork.joined(self._wire.engine, works, [tensor])
