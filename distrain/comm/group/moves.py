"""Collectives that move bytes without combining them, point to point, and barriers."""

# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from mpi4py import MPI

from distrain.comm.buffers import FlatBuffer, Reduction, byte_view, overlap
from distrain.comm.device.by_host import HostSide
from distrain.comm.device.by_pointers import Payloads
from distrain.comm.group import forms
from distrain.comm.group.arguments import as_list, limited, only, only_list
from distrain.comm.group.base import SPARE_SECONDS
from distrain.comm.group.monitored import MonitoredBarrier
from distrain.comm.group.reductions import Reductions
from distrain.comm.messages.exchange import PIECE_BYTES, Message, barrier_operation, broadcast_operation
from distrain.comm.operation import Mark
from distrain.comm.work import DistrainWork
from distrain.errors import CallError


class Moves(Reductions):
    """broadcast, gather, scatter, all_to_all, send, recv, barrier."""

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
        host = HostSide()  # MPI's own broadcast: of libraries that take pointers not all take them there
        data = host.read(tensor) if self.rank() == root else host.write(tensor)
        operation = broadcast_operation(self._wire.comm, byte_view(data), root)
        self._wire.sign(operation, self._wire.number("broadcast", tensor.numel(), tensor.dtype, root=root))
        return self._submit(host, operation, [tensor])

    def _sent_broadcast(self, tensor: torch.Tensor, root: int) -> DistrainWork:
        """Do the same by messages with tags: MPI tells its own broadcasts apart by their order alone."""
        host = HostSide()
        leaving, arriving = {}, {}
        if self.rank() == root:
            leaving = dict.fromkeys(range(self.size()), host.read(tensor))
        else:
            arriving[root] = host.write(tensor)
        return self._messages(host, "broadcast", leaving, arriving, [tensor], tensor.numel(), root)

    @forms.takes(forms.GATHER)
    def gather(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy the input of rank r to the r-th output of the root."""
        source, root = only(inputs), opts.rootRank
        self._check_rank("gather", root)
        if self.rank() != root:
            host = self._payloads(source)
            own = host.read(source)
            return limited(self._messages(host, "gather", {root: own}, {}, [], own.numel(), root), opts)
        targets = only_list(outputs)
        self._check_parts("gather", targets)
        for target in targets:
            self._check_alike("gather", source, target)
        host = self._payloads(source, *targets)
        own = host.read(source)
        arriving = {rank: host.write(target) for rank, target in enumerate(targets)}
        work = self._messages(host, "gather", {root: own}, arriving, targets, own.numel(), root)
        return limited(work, opts)

    @forms.takes(forms.SCATTER)
    def scatter(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy the root's r-th input to the output of rank r."""
        target, root = only(outputs), opts.rootRank
        self._check_rank("scatter", root)
        if self.rank() != root:
            host = self._payloads(target)
            arriving = {root: host.write(target)}
            work = self._messages(host, "scatter", {}, arriving, [target], target.numel(), root)
            return limited(work, opts)
        sources = only_list(inputs)
        self._check_parts("scatter", sources)
        for source in sources:
            self._check_alike("scatter", source, target)
        host = self._payloads(target, *sources)
        arriving = {root: host.write(target)}
        leaving = {rank: host.read(source) for rank, source in enumerate(sources)}
        work = self._messages(host, "scatter", leaving, arriving, [target], target.numel(), root)
        return limited(work, opts)

    @forms.takes(forms.ALL_TO_ALL)
    def alltoall(self, outputs: Any, inputs: Any, opts: Any) -> DistrainWork:
        """Copy input d of rank s to output s of rank d. The sizes may differ."""
        targets, sources = only_list(outputs), only_list(inputs)
        self._check_parts("all_to_all outputs", targets)
        self._check_parts("all_to_all inputs", sources)
        self._check_alike("all_to_all", sources[self.rank()], targets[self.rank()])
        host = self._payloads(*targets, *sources)
        leaving = {rank: host.read(source) for rank, source in enumerate(sources)}
        if overlap([*targets, *sources]):  # what arrives may land on what has not left
            leaving = {rank: host.copy(own) for rank, own in leaving.items()}
        arriving = {rank: host.write(target) for rank, target in enumerate(targets)}
        return limited(self._messages(host, "all_to_all", leaving, arriving, targets), opts)

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
        host = self._payloads(output, input)
        self._check_alike("all_to_all", input, output, sizes=False)
        own, result = host.read(input), host.write(output)
        if own.untyped_storage().data_ptr() == result.untyped_storage().data_ptr():
            own = host.copy(own)  # see alltoall
        leaving = self._slices("all_to_all input", own, input_splits)
        arriving = self._slices("all_to_all output", result, output_splits)
        self._check_alike("all_to_all", leaving[self.rank()], arriving[self.rank()])
        return limited(self._messages(host, "all_to_all", leaving, arriving, [output]), opts)

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

    # Point to point

    @forms.takes(forms.SEND)
    def send(self, tensors: Any, dst: int, tag: int | None = None) -> DistrainWork:
        """Send a tensor to rank `dst` of the group."""
        self._check_rank("send", dst)
        tensor = only(tensors)
        host = self._payloads(tensor)
        message = Message(dst, host.bytes(host.read(tensor)))
        return self._point_to_point(host, "send", tensor, tag or 0, sends=[message])

    @forms.takes(forms.RECV)
    def recv(self, tensors: Any, src: int, tag: int | None = None) -> DistrainWork:
        """Receive a tensor from rank `src` of the group."""
        self._check_rank("recv", src)
        tensor = only(tensors)
        host = self._payloads(tensor)
        message = Message(src, host.bytes(host.write(tensor)))
        return self._point_to_point(host, "recv", tensor, tag or 0, receives=[message])

    def recv_anysource(self, tensors: Any, tag: int = 0) -> DistrainWork:
        """Receive a tensor from whoever sends; `source_rank` of the work tells who did."""
        tensor = only(tensors)
        host = self._payloads(tensor)
        data = host.bytes(host.write(tensor))
        if len(data) > PIECE_BYTES:
            raise CallError(
                "recv from any rank",
                f"{len(data)} bytes come in several messages, perhaps of several senders",
                "name the source, or send less than 1 GiB",
            )
        return self._point_to_point(host, "recv", tensor, tag, receives=[Message(MPI.ANY_SOURCE, data)])

    def _point_to_point(
        self,
        host: Payloads,
        kind: str,
        tensor: torch.Tensor,
        tag: int,
        sends: Sequence[Message] = (),
        receives: Sequence[Message] = (),
    ) -> DistrainWork:
        if not 0 <= tag < self._wire.user_tags:
            raise CallError(
                kind, f"tag={tag} is not in 0 ... {self._wire.user_tags - 1}", "use a smaller tag"
            )
        operation = host.messages(
            kind,
            self._wire.comm,
            self._wire.first_user_tag + tag,
            sends,
            receives,
            ordered=False,
            # Who waits gets an error first, and may react to it.
            patience_seconds=self._timeout_seconds + SPARE_SECONDS,
        )
        operation.timeout_seconds = self._timeout_seconds
        return self._submit(host, operation, [tensor])

    # Barriers

    @forms.takes(forms.BARRIER)
    def barrier(self, opts: Any) -> DistrainWork:
        """Complete once every rank has called it, and what this one called before it is complete."""
        wire = self._wire
        if wire.callback() is not None:
            return limited(self._summed_barrier(), opts)
        operation, before = barrier_operation(wire.comm), None
        operation.concurrency = 1  # it starts when the collectives by messages before it are complete
        if wire.direct is not None:
            if wire.direct.pending is not None:
                wire.direct.flush()
            if wire.engine.is_busy(wire.channel):
                before = wire.engine.submit(Mark(wire.channel))
        wire.sign(operation, wire.number("barrier"))
        ready = None if before is None else lambda: before.is_done
        return limited(self._submit(HostSide(), operation, [], ready=ready), opts)

    def _summed_barrier(self) -> DistrainWork:
        """Do the same by a sum that nobody reads; see `_sent_broadcast`."""
        buffer = FlatBuffer(torch.zeros(1, device="cpu"))
        call = self._wire.number("barrier")
        operation = self._wire.reduction(buffer, Reduction.SUM, kind="barrier", call=call)
        operation.concurrency = 1  # as above
        return self._submit(None, operation, [])

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Block until every rank has called it; name the ranks that do not come in time.

        Raises:
            CommError: a rank is missing.
        """
        seconds = -1.0 if timeout is None else timeout.total_seconds()
        if seconds < 0:
            seconds = self._timeout_seconds
        operation = MonitoredBarrier(self._wire.comm, self._wire.tags.take(1), seconds, wait_all_ranks)
        self._submit(HostSide(), operation, []).wait()
        self._wire.is_clean = self._wire.is_clean and not operation.has_failed
        operation.raise_if_missing(self._wire.members)
