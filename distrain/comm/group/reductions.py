"""Other collectives that combine, and all_gather: all run Schedules."""


# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from distrain.comm.buffers import Reduction, byte_tensor
from distrain.comm.device.by_pointers import Payloads
from distrain.comm.group import forms
from distrain.comm.group.allreduces import Allreduces
from distrain.comm.group.arguments import (
    factor_of,
    limited,
    only,
    only_list,
    pack,
    reduction_of,
    scaled,
    unpack,
)
from distrain.comm.work import DistrainWork
from distrain.schedule.ir import Collective
from distrain.world import split


class Reductions(Allreduces):
    """reduce, reduce_scatter; and all_gather, which is the half of a Schedule that copies."""

    @forms.takes(forms.REDUCE)
    def reduce(self, tensors: Any, opts: Any) -> DistrainWork:
        """Combine over all ranks; only the root's tensor changes."""
        tensor = only(tensors)
        payloads = self._payloads(tensor, combines=True)
        self._check_rank("reduce", opts.rootRank)
        source = payloads.read(tensor)
        scratch = payloads.empty(source.numel(), source.dtype).view(source.shape)
        result = payloads.write(tensor) if self.rank() == opts.rootRank else None
        reduction, factor = reduction_of(opts), factor_of(opts, source.dtype)
        buffer = payloads.buffer(scratch)
        buffer.check(reduction)
        call = self._wire.number(
            payloads.kind("reduce"), source.numel(), source.dtype, reduction, opts.rootRank
        )
        operation = self._wire.reduction(buffer, reduction, kind="reduce", call=call)

        def after() -> None:
            if result is not None:
                result.copy_(scratch)

        work = self._submit(
            payloads, operation, [tensor], lambda: scaled(scratch.copy_(source), factor), after
        )
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
        payloads = self._payloads(output, *inputs, combines=True)
        sources, result = [payloads.read(part) for part in inputs], payloads.write(output)
        scratch = payloads.empty(sum(source.numel() for source in sources), output.dtype)
        sizes = [source.numel() for source in sources] if len(sources) == self.size() else None
        even = sizes is None or len(set(sizes)) == 1
        # A Schedule's parts are equal; of unequal ones everybody gets the whole.
        collective = Collective.REDUCE_SCATTER if even else Collective.ALLREDUCE
        first = split(scratch.numel(), self.size())[self.rank()].start
        if sizes is not None:
            first = sum(sizes[: self.rank()])
        mine = scratch[first : first + output.numel()]
        reduction, factor = reduction_of(opts), factor_of(opts, output.dtype)
        buffer = payloads.buffer(scratch)
        buffer.check(reduction)
        call = self._wire.number(payloads.kind("reduce_scatter"), scratch.numel(), scratch.dtype, reduction)
        operation = self._wire.reduction(buffer, reduction, collective, kind="reduce_scatter", call=call)

        def before() -> None:
            pack(sources, scratch)
            scaled(scratch, factor)

        work = self._submit(payloads, operation, [output], before, lambda: unpack(mine, [result]))
        return limited(work, opts)

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
        payloads = self._payloads(source, *parts)
        own, results = payloads.read(source), [payloads.write(part) for part in parts]
        whole = payloads.empty(source.numel() * self.size(), source.dtype)
        work = self._gather_parts(payloads, own, whole, parts, lambda: unpack(whole, results))
        return limited(work, opts)

    def _uneven_allgather(self, parts: Sequence[torch.Tensor], source: torch.Tensor) -> DistrainWork:
        payloads = self._payloads(source, *parts)
        own = payloads.read(source)
        leaving = dict.fromkeys(range(self.size()), own)
        arriving = {rank: payloads.write(part) for rank, part in enumerate(parts)}
        return self._messages(payloads, "all_gather", leaving, arriving, parts)

    @forms.takes(forms.ALL_GATHER_SINGLE)
    def all_gather_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any) -> DistrainWork:
        """Copy the input of rank r to the r-th part of the output of all ranks.

        Args:
            output: world_size * n elements.
            input: n elements.
            opts: torch's options.
        """
        self._check_multiple("all_gather", output, input)
        payloads = self._payloads(output, input)
        own, whole = payloads.read(input), payloads.write(output)
        return limited(self._gather_parts(payloads, own, whole, [output]), opts)

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
        payloads: Payloads,
        own: torch.Tensor,
        whole: torch.Tensor,
        results: Sequence[torch.Tensor],
        after: Callable[[], Any] | None = None,
    ) -> DistrainWork:
        data = byte_tensor(whole)
        mine = byte_tensor(own)
        place = data[self.rank() * mine.numel() : (self.rank() + 1) * mine.numel()]
        call = self._wire.number(payloads.kind("all_gather"), own.numel(), own.dtype)
        operation = self._wire.reduction(
            payloads.buffer(data), Reduction.BOR, Collective.ALL_GATHER, kind="all_gather", call=call
        )
        return self._submit(payloads, operation, results, lambda: place.copy_(mine), after)
