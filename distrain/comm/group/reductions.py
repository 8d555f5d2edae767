"""Collectives that combine: all run Schedules."""

# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from mpi4py import MPI

from distrain.comm import callbacks
from distrain.comm.buffers import FlatBuffer, Reduction, byte_tensor, overlap
from distrain.comm.device import HostSide, held, is_plain, pieces
from distrain.comm.exchange import MpiOperation
from distrain.comm.group import forms
from distrain.comm.group.base import (
    GroupBase,
    as_list,
    limit,
    limited,
    only,
    only_list,
    pack,
    reduction_of,
    scaled,
    unpack,
)
from distrain.comm.group.sparse import sparse_allreduce
from distrain.comm.on_device import Payloads
from distrain.comm.operation import Operation
from distrain.comm.shared.caller import DONE
from distrain.comm.shared.channel import COMPLETE
from distrain.comm.supervision.call import Call
from distrain.comm.work import DistrainWork
from distrain.errors import CallError
from distrain.schedule.ir import Collective
from distrain.world import split


def _copied(host: HostSide, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of the contents as they are now, on the host."""
    source = host.read(tensor)
    return source.clone() if source.data_ptr() == tensor.data_ptr() else source


class Reductions(GroupBase):
    """allreduce, reduce, reduce_scatter; and all_gather, which is the half of a Schedule that copies."""

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
        if self._quick is not None and self._coalescing is None and callbacks.current() is None:
            answer = self._quick.tensors(tensors, opts)
            if answer is None and self._free_quick():
                answer = self._quick.tensors(tensors, opts)
            if answer is DONE:
                return DONE
            if answer is not None:
                return self._take_over(answer, tensors[0], reduction_of(opts))
        if type(opts) is not dist.AllreduceOptions:
            words = {"tensor": tensor, "opts": opts, "op": op, "timeout": timeout}
            return self.allreduce(*forms.of_allreduce(tensors, **words))
        return limited(self._general_allreduce(tensors, opts), opts)

    @forms.takes(forms.ALLREDUCE_COALESCED)
    def allreduce_coalesced(self, tensors: Any, opts: Any) -> dist.Work:
        """Combine each tensor over all ranks, in place; all are read before any is written."""
        found = [held(tensor) for tensor in as_list(tensors)]
        if not overlap(found):
            return limited(self._general_allreduce(found, opts), opts)
        reduction = reduction_of(opts)
        hosts = [HostSide() for _ in found]
        copies = [
            scaled(_copied(host, tensor), opts) for host, tensor in zip(hosts, found, strict=True)
        ]  # all, then begin
        works = [self._allreduce_copy(*each, reduction) for each in zip(hosts, found, copies, strict=True)]
        return limited(self._join(works), opts)

    def _general_allreduce(self, tensors: Any, opts: Any) -> dist.Work:
        reduction, found = reduction_of(opts), [scaled(held(tensor), opts) for tensor in as_list(tensors)]
        awaited = getattr(opts, "asyncOp", True) is False and self._coalescing is None
        wire = self._wire
        if found[0].layout is not torch.strided:
            return self._join([self._sparse_allreduce(tensor, reduction) for tensor in found])
        within = callbacks.current() is not None
        alone = len(found) == 1 and self._coalescing is None and not within
        if alone and found[0].is_cpu and wire.direct is not None:
            return self._direct_allreduce(found[0], reduction, opts, awaited)
        if len(found) == 1 and is_plain(found[0]):
            work = self._allreduce_plain(found[0], reduction, awaited)
            if awaited and wire.routes is not None and not within:
                wire.routes.learn(found[0], reduction)
            return work
        works = [
            self._in_pieces(tensor, lambda piece: self._allreduce(piece, reduction, awaited=awaited))
            if isinstance(self._payloads(tensor, combines=True), HostSide)
            else self._allreduce(tensor, reduction, awaited=awaited)
            for tensor in found
        ]
        if awaited and wire.routes is not None:
            wire.routes.learn(found[0], reduction)
        return self._join(works)

    def _direct_allreduce(
        self, tensor: torch.Tensor, reduction: Reduction, opts: Any, awaited: bool
    ) -> dist.Work:
        wire = self._wire
        call = wire.number("allreduce", tensor.numel(), tensor.dtype, reduction)

        def sign(operation: Operation) -> None:
            wire.sign(operation, call)
            limit(operation, opts)

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
        if self._quick is None or self._coalescing is not None or callbacks.current() is not None:
            return False
        answer = self._quick.array(array, name)
        if answer is None and self._free_quick():
            answer = self._quick.array(array, name)
        if answer is DONE:
            return True
        if answer is None:
            return False
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
        return self._take_over(answer, tensor, Reduction(name)).wait()

    def _take_over(self, code: int, tensor: torch.Tensor, reduction: Reduction) -> dist.Work:
        """Let the engine complete what a call of C has begun."""
        wire = self._wire
        if wire.routes is not None:
            return self._go_on(code, tensor, reduction)
        assert wire.direct is not None  # it made the call
        operation = wire.direct.take_over(code, tensor, reduction)
        wire.sign(operation, wire.note("allreduce", tensor.numel(), tensor.dtype, reduction))
        return self._submit(HostSide(), operation, [tensor], awaited=True)

    def _in_pieces(
        self, tensor: torch.Tensor, combine: Callable[[torch.Tensor], DistrainWork]
    ) -> DistrainWork:
        works = [combine(piece) for piece in pieces(tensor)]
        return works[0] if len(works) == 1 else DistrainWork.joined(self._wire.engine, works, [tensor])

    def _go_on(self, code: int, tensor: torch.Tensor, reduction: Reduction) -> dist.Work:
        """Do the same for a call between nodes."""
        wire = self._wire
        if code == COMPLETE:
            wire.engine.leave()
            return DONE
        wire.prove_before()
        operation = wire.routes.take_over(code, tensor, reduction)
        operation.proves_agreement = True
        wire.sign(operation, wire.note("allreduce", tensor.numel(), tensor.dtype, reduction))
        return DistrainWork(wire.engine, [wire.engine.adopt(operation)], [tensor])

    def _allreduce(
        self, tensor: torch.Tensor, reduction: Reduction, call: Call | None = None, awaited: bool = False
    ) -> DistrainWork:
        host = self._payloads(tensor, combines=True)
        buffer = host.buffer(host.update(tensor))
        buffer.check(reduction)  # before it counts
        call = call or self._wire.number(host.kind("allreduce"), tensor.numel(), tensor.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, call=call)
        return self._submit(host, operation, [tensor], awaited=awaited)

    def _allreduce_plain(self, tensor: torch.Tensor, reduction: Reduction, awaited: bool) -> DistrainWork:
        """Do the same in the tensor's own memory, which is on the host already: the bucket of DDP."""
        buffer = FlatBuffer(tensor)
        buffer.check(reduction)
        call = self._wire.number("allreduce", buffer.count, buffer.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, call=call)
        return self._submit(None, operation, [tensor], awaited=awaited)

    def _allreduce_copy(
        self, host: HostSide, tensor: torch.Tensor, copy: torch.Tensor, reduction: Reduction
    ) -> DistrainWork:
        """Do the same with a copy of what the tensor held before."""
        result, buffer = host.write(tensor), FlatBuffer(copy)
        buffer.check(reduction)
        call = self._wire.number("allreduce", tensor.numel(), tensor.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, call=call)
        return self._submit(host, operation, [tensor], after=lambda: result.copy_(copy))

    def narrow_allreduce(self, tensor: torch.Tensor, wire_dtype: torch.dtype) -> DistrainWork:
        """Sum float32 over all ranks, in place, with 16 bits on the wire; see `narrow.py`."""
        return self._in_pieces(tensor, lambda piece: self._narrow_allreduce(piece, wire_dtype))

    def _narrow_allreduce(self, tensor: torch.Tensor, wire_dtype: torch.dtype) -> DistrainWork:
        host = HostSide()
        buffer = FlatBuffer(host.update(tensor))
        call = self._wire.number("allreduce", buffer.count, wire_dtype, Reduction.SUM)
        operation = self._wire.reduction(buffer, Reduction.SUM, wire_dtype=wire_dtype, call=call)
        return self._submit(host, operation, [tensor])

    def mpi_allreduce(self, tensor: torch.Tensor) -> DistrainWork:
        """Sum over all ranks, in place, by the MPI library's own algorithm.

        Raises:
            CallError: MPI has no such type.
        """
        if tensor.dtype not in (torch.float32, torch.float64):
            raise CallError("allreduce by MPI", f"MPI has no {tensor.dtype}", "use comm.sync=distrain")
        host, comm = HostSide(), self._wire.comm
        data = host.update(tensor).reshape(-1).numpy()
        operation = MpiOperation(
            "allreduce", comm, lambda: [comm.Iallreduce(MPI.IN_PLACE, data, MPI.SUM)], data.nbytes
        )
        call = self._wire.number("allreduce", tensor.numel(), tensor.dtype, Reduction.SUM)
        self._wire.sign(operation, call)
        return self._submit(host, operation, [tensor])

    @forms.takes(forms.REDUCE)
    def reduce(self, tensors: Any, opts: Any) -> DistrainWork:
        """Combine over all ranks; only the root's tensor changes."""
        tensor = only(tensors)
        host = self._payloads(tensor, combines=True)
        self._check_rank("reduce", opts.rootRank)
        source = host.read(tensor)
        scratch = host.empty(source.numel(), source.dtype).view(source.shape)
        result = host.write(tensor) if self.rank() == opts.rootRank else None
        reduction = reduction_of(opts)
        buffer = host.buffer(scratch)
        buffer.check(reduction)
        call = self._wire.number(host.kind("reduce"), source.numel(), source.dtype, reduction, opts.rootRank)
        operation = self._wire.reduction(buffer, reduction, kind="reduce", call=call)

        def after() -> None:
            if result is not None:
                result.copy_(scratch)

        work = self._submit(host, operation, [tensor], lambda: scaled(scratch.copy_(source), opts), after)
        return limited(work, opts)

    @forms.takes(forms.REDUCE_SCATTER)
    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Combine the r-th input of all ranks into the output of rank r. The parts may differ in size."""
        output, parts = only(outputs), only_list(inputs)
        self._check_parts("reduce_scatter", parts)
        for part in parts:
            self._check_alike("reduce_scatter", part, output, sizes=False)
        self._check_alike("reduce_scatter", parts[self.rank()], output)
        return self._reduce_parts(parts, output, opts)

    @forms.takes(forms.REDUCE_SCATTER_SINGLE)
    def reduce_scatter_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any) -> DistrainWork:
        """Combine the r-th part of the input of all ranks into the output of rank r.

        Args:
            output: n elements.
            input: world_size * n elements.
            opts: names the reduction.
        """
        self._check_multiple("reduce_scatter", input, output)
        return self._reduce_parts([input], output, opts)

    _reduce_scatter_base = reduce_scatter_single

    @forms.takes(forms.REDUCE_SCATTER_LISTS)
    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Several `reduce_scatter_single`."""
        pairs = zip(outputs, inputs, strict=True)
        return self._join([self.reduce_scatter_single(o, i, opts) for o, i in pairs])

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def _reduce_parts(self, inputs: Sequence[torch.Tensor], output: torch.Tensor, opts: Any) -> DistrainWork:
        host = self._payloads(output, *inputs, combines=True)
        sources, result = [host.read(part) for part in inputs], host.write(output)
        scratch = host.empty(sum(source.numel() for source in sources), output.dtype)
        sizes = [source.numel() for source in sources] if len(sources) == self.size() else None
        even = sizes is None or len(set(sizes)) == 1
        # A Schedule's parts are equal; of unequal ones everybody gets the whole.
        collective = Collective.REDUCE_SCATTER if even else Collective.ALLREDUCE
        first = split(scratch.numel(), self.size())[self.rank()].start
        if sizes is not None:
            first = sum(sizes[: self.rank()])
        mine = scratch[first : first + output.numel()]
        reduction = reduction_of(opts)
        buffer = host.buffer(scratch)
        buffer.check(reduction)
        call = self._wire.number(host.kind("reduce_scatter"), scratch.numel(), scratch.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, collective, kind="reduce_scatter", call=call)

        def before() -> None:
            pack(sources, scratch)
            scaled(scratch, opts)

        work = self._submit(host, operation, [output], before, lambda: unpack(mine, [result]))
        return limited(work, opts)

    def _sparse_allreduce(self, tensor: torch.Tensor, reduction: Reduction) -> DistrainWork:
        works = sparse_allreduce(lambda o, i: self.allgather(o, i), self.size(), tensor, reduction)
        return DistrainWork.joined(self._wire.engine, works, [tensor])

    @forms.takes(forms.ALL_GATHER)
    def allgather(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy the input of rank r to the r-th output of all ranks. The sizes may differ between ranks."""
        parts, source = only_list(outputs), only(inputs)
        self._check_parts("all_gather", parts)
        for part in parts:
            self._check_alike("all_gather", source, part, sizes=False)
        self._check_alike("all_gather", source, parts[self.rank()])
        if len({part.numel() for part in parts}) > 1:
            return limited(self._uneven_allgather(parts, source), opts)
        host = self._payloads(source, *parts)
        own, results = host.read(source), [host.write(part) for part in parts]
        whole = host.empty(source.numel() * self.size(), source.dtype)
        work = self._gather_parts(host, own, whole, parts, lambda: unpack(whole, results))
        return limited(work, opts)

    def _uneven_allgather(self, parts: Sequence[torch.Tensor], source: torch.Tensor) -> DistrainWork:
        host = self._payloads(source, *parts)
        own = host.read(source)
        leaving = dict.fromkeys(range(self.size()), own)
        arriving = {rank: host.write(part) for rank, part in enumerate(parts)}
        return self._messages(host, "all_gather", leaving, arriving, parts)

    @forms.takes(forms.ALL_GATHER_SINGLE)
    def all_gather_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any) -> DistrainWork:
        """Copy the input of rank r to the r-th part of the output of all ranks.

        Args:
            output: world_size * n elements.
            input: n elements.
            opts: torch's options.
        """
        self._check_multiple("all_gather", output, input)
        host = self._payloads(output, input)
        own, whole = host.read(input), host.write(output)
        return limited(self._gather_parts(host, own, whole, [output]), opts)

    _allgather_base = all_gather_single

    @forms.takes(forms.ALL_GATHER_LISTS)
    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Several `all_gather_single`."""
        return self._join([self.all_gather_single(o, i, opts) for o, i in zip(outputs, inputs, strict=True)])

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    @forms.takes(forms.ALL_GATHER_LISTS)
    def allgather_coalesced(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Several `allgather`: ``outputs[rank][i]`` receives input i of that rank."""
        columns = zip(*outputs, strict=True)
        return self._join(
            [self.allgather([list(o)], [i], opts) for o, i in zip(columns, inputs, strict=True)]
        )

    def _gather_parts(
        self,
        host: Payloads,
        own: torch.Tensor,
        whole: torch.Tensor,
        results: Sequence[torch.Tensor],
        after: Callable[[], Any] | None = None,
    ) -> DistrainWork:
        data = byte_tensor(whole)
        mine = byte_tensor(own)
        place = data[self.rank() * mine.numel() : (self.rank() + 1) * mine.numel()]
        call = self._wire.number(host.kind("all_gather"), own.numel(), own.dtype)
        operation = self._wire.reduction(
            host.buffer(data), Reduction.BOR, Collective.ALL_GATHER, kind="all_gather", call=call
        )
        return self._submit(host, operation, results, lambda: place.copy_(mine), after)
