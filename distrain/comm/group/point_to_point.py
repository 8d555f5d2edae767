"""Messages from one rank to another, as the caller names them."""

# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from distrain.comm.device.by_pointers import Payloads
from distrain.comm.group import forms
from distrain.comm.group.arguments import only
from distrain.comm.group.base import SPARE_SECONDS, GroupBase
from distrain.comm.messages.plain import LONGEST_MESSAGE, Message
from distrain.comm.process.mpi import MPI
from distrain.comm.work import DistrainWork
from distrain.errors import CallError


class PointToPoint(GroupBase):
    """send, recv."""

    @forms.takes(forms.SEND)
    def send(self, tensors: Any, dst: int, tag: int | None = None) -> DistrainWork:
        """Send a tensor to rank `dst` of the group."""
        self._check_rank("send", dst)
        tensor = only(tensors)
        payloads = self._payloads(tensor)
        message = Message(dst, payloads.bytes(payloads.read(tensor)))
        return self._point_to_point(payloads, "send", tensor, tag or 0, sends=[message])

    @forms.takes(forms.RECV)
    def recv(self, tensors: Any, src: int, tag: int | None = None) -> DistrainWork:
        """Receive a tensor from rank `src` of the group."""
        self._check_rank("recv", src)
        tensor = only(tensors)
        payloads = self._payloads(tensor)
        message = Message(src, payloads.bytes(payloads.write(tensor)))
        return self._point_to_point(payloads, "recv", tensor, tag or 0, receives=[message])

    def recv_anysource(self, tensors: Any, tag: int = 0) -> DistrainWork:
        """Receive a tensor from whoever sends; `source_rank` of the work tells who did."""
        tensor = only(tensors)
        payloads = self._payloads(tensor)
        data = payloads.bytes(payloads.write(tensor))
        if len(data) > LONGEST_MESSAGE:
            raise CallError(
                "recv from any rank",
                f"{len(data)} bytes come in several messages, perhaps of several senders",
                "name the source, or send less than 1 GiB",
            )
        return self._point_to_point(payloads, "recv", tensor, tag, receives=[Message(MPI.ANY_SOURCE, data)])

    def _point_to_point(
        self,
        payloads: Payloads,
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
        operation = payloads.messages(
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
        return self._submit(payloads, operation, [tensor])
