"""Collectives that move bytes from rank to rank without combining them."""

# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from distrain.comm.buffers import byte_view, overlap
from distrain.comm.device.by_host import HostPayloads
from distrain.comm.group import forms
from distrain.comm.group.arguments import as_list, limited, only, only_list
from distrain.comm.group.base import GroupBase
from distrain.comm.messages.plain import broadcast_operation
from distrain.comm.work import DistrainWork
from distrain.errors import CallError


class Copies(GroupBase):
    """broadcast, gather, scatter, all_to_all."""

    @forms.takes(forms.BROADCAST)
    def broadcast(self, tensors: Any, opts: Any) -> DistrainWork:
        """Copy each of the root's tensors to all ranks."""
        return limited(
            self._join([self._broadcast(tensor, opts.rootRank) for tensor in as_list(tensors)]), opts
        )

    def _broadcast(self, tensor: torch.Tensor, root: int) -> DistrainWork:
        self._check_rank("broadcast", root)
        if self._wire.callback() is not None:
            return self._sent_broadcast(tensor, root)
        # MPI's own broadcast: of libraries that take pointers not all take them there.
        payloads = HostPayloads()
        data = payloads.read(tensor) if self.rank() == root else payloads.write(tensor)
        operation = broadcast_operation(self._wire.comm, byte_view(data), root)
        self._wire.sign(operation, self._wire.number("broadcast", tensor.numel(), tensor.dtype, root=root))
        return self._submit(payloads, operation, [tensor])

    def _sent_broadcast(self, tensor: torch.Tensor, root: int) -> DistrainWork:
        """Do the same by messages with tags: MPI tells its own broadcasts apart by their order alone."""
        payloads = HostPayloads()
        leaving, arriving = {}, {}
        if self.rank() == root:
            leaving = dict.fromkeys(range(self.size()), payloads.read(tensor))
        else:
            arriving[root] = payloads.write(tensor)
        return self._messages(payloads, "broadcast", leaving, arriving, [tensor], tensor.numel(), root)

    @forms.takes(forms.GATHER)
    def gather(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy the input of rank r to the r-th output of the root."""
        source, root = only(inputs), opts.rootRank
        self._check_rank("gather", root)
        if self.rank() != root:
            payloads = self._payloads(source)
            own = payloads.read(source)
            return limited(self._messages(payloads, "gather", {root: own}, {}, [], own.numel(), root), opts)
        targets = only_list(outputs)
        self._check_parts("gather", targets)
        for target in targets:
            self._check_alike("gather", source, target)
        payloads = self._payloads(source, *targets)
        own = payloads.read(source)
        arriving = {rank: payloads.write(target) for rank, target in enumerate(targets)}
        work = self._messages(payloads, "gather", {root: own}, arriving, targets, own.numel(), root)
        return limited(work, opts)

    @forms.takes(forms.SCATTER)
    def scatter(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy the root's r-th input to the output of rank r."""
        target, root = only(outputs), opts.rootRank
        self._check_rank("scatter", root)
        if self.rank() != root:
            payloads = self._payloads(target)
            arriving = {root: payloads.write(target)}
            work = self._messages(payloads, "scatter", {}, arriving, [target], target.numel(), root)
            return limited(work, opts)
        sources = only_list(inputs)
        self._check_parts("scatter", sources)
        for source in sources:
            self._check_alike("scatter", source, target)
        payloads = self._payloads(target, *sources)
        arriving = {root: payloads.write(target)}
        leaving = {rank: payloads.read(source) for rank, source in enumerate(sources)}
        work = self._messages(payloads, "scatter", leaving, arriving, [target], target.numel(), root)
        return limited(work, opts)

    @forms.takes(forms.ALL_TO_ALL)
    def alltoall(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy input d of rank s to output s of rank d. The sizes may differ."""
        targets, sources = only_list(outputs), only_list(inputs)
        self._check_parts("all_to_all outputs", targets)
        self._check_parts("all_to_all inputs", sources)
        self._check_alike("all_to_all", sources[self.rank()], targets[self.rank()])
        payloads = self._payloads(*targets, *sources)
        leaving = {rank: payloads.read(source) for rank, source in enumerate(sources)}
        arriving = {rank: payloads.write(target) for rank, target in enumerate(targets)}
        if overlap([*leaving.values(), *arriving.values()]):  # what arrives may land on what has not left
            leaving = {rank: payloads.copy(own) for rank, own in leaving.items()}
        return limited(self._messages(payloads, "all_to_all", leaving, arriving, targets), opts)

    @forms.takes(forms.ALL_TO_ALL_SINGLE)
    def all_to_all_single(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_splits: Sequence[int] | None,
        input_splits: Sequence[int] | None,
        opts: Any,
    ) -> DistrainWork:
        """Send the d-th slice of the input (along its first dimension) to rank d.

        Args:
            output: receives the slices of ranks 0, 1, ... one after the other.
            input: the slices for ranks 0, 1, ... one after the other.
            output_splits: rows from each rank; empty: equal parts.
            input_splits: rows for each rank; empty: equal parts.
            opts: torch's options.
        """
        payloads = self._payloads(output, input)
        self._check_alike("all_to_all", input, output, sizes=False)
        own, result = payloads.read(input), payloads.write(output)
        if own.untyped_storage().data_ptr() == result.untyped_storage().data_ptr():
            own = payloads.copy(own)  # see alltoall
        leaving = self._slices("all_to_all input", own, input_splits)
        arriving = self._slices("all_to_all output", result, output_splits)
        self._check_alike("all_to_all", leaving[self.rank()], arriving[self.rank()])
        return limited(self._messages(payloads, "all_to_all", leaving, arriving, [output]), opts)

    alltoall_base = all_to_all_single

    def _slices(
        self, what: str, tensor: torch.Tensor, splits: Sequence[int] | None
    ) -> dict[int, torch.Tensor]:
        rows = tensor.shape[0] if tensor.dim() else 1
        if not splits:
            if rows % self.size():
                raise CallError(
                    what, f"{rows} rows do not divide by {self.size()} ranks", "pass split sizes, or pad"
                )
            splits = [rows // self.size()] * self.size()
        if len(splits) != self.size() or sum(splits) != rows:
            raise CallError(
                what,
                f"splits={list(splits)} do not cut {rows} rows for {self.size()} ranks",
                "pass one count a rank, which together are all rows",
            )
        return dict(enumerate(tensor.split(list(splits))))
