"""The forms of a call that torch's own groups accept: options, or a root, an operation and a timeout bare.

``group.broadcast([tensor], options)`` is what torch.distributed calls. Programs that hold a group also write
``group.broadcast(tensor, 0)``, ``group.reduce_scatter(output, inputs, op=MAX, timeout=...)`` or
``group.allgather(output_tensors=..., input_tensor=...)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import AllgatherOptions

from distrain.comm.group import modes

# What a short form may give, and the field of the options that it is.
_FIELDS = {"root": "rootRank", "op": "reduceOp", "timeout": "timeout"}


class Form:
    """How one call may be written.

    Args:
        kind: of its options; None: it has none.
        data: names of its other arguments, in the order of the full form; ``a|b``: either of them,
            ``a?``: may be left out.
        short: what the short form takes in place of options, in order; of `_FIELDS`.
    """

    def __init__(self, kind: Any, data: str, short: str = "") -> None:
        self.kind, self.short = kind, short.split()
        self.data = [tuple(name.strip("?").split("|")) for name in data.split()]
        self.optional = [name.endswith("?") for name in data.split()]

    def is_full(self, args: Sequence[Any]) -> bool:
        """True if these are all arguments of the full form, in order."""
        if self.kind is None:
            return len(args) == len(self.data)
        return len(args) == len(self.data) + 1 and type(args[-1]) is self.kind

    def full(self, name: str, args: Sequence[Any], words: Mapping[str, Any]) -> list[Any]:
        """Return the arguments of the full form: the data, then the options.

        What may be left out and is left out is None.

        Raises:
            TypeError: an argument that the call does not have, one given twice, or one that is missing.
        """
        left = dict(words)
        data = list(args[: len(self.data)])
        for names, optional in list(zip(self.data, self.optional, strict=True))[len(data) :]:
            given = next((word for word in names if word in left), None)
            if given is None and not optional:
                raise TypeError(f"{name}() needs {' or '.join(names)}")
            data.append(None if given is None else left.pop(given))
        if self.kind is None:
            return [*data, *self._rest(name, args[len(self.data) :], left)]
        rest, options = list(args[len(self.data) :]), left.pop("opts", None)
        if rest and (rest[0] is None or type(rest[0]) is self.kind):
            options = rest.pop(0) or options
        fields = dict(zip(self.short, rest, strict=False))
        surplus = rest[len(self.short) :]
        for field in self.short:
            if field in left and field not in fields:
                fields[field] = left.pop(field)
        self._rest(name, surplus, left)
        return [*data, self._options(name, options, fields)]

    def _rest(self, name: str, surplus: Sequence[Any], words: Mapping[str, Any]) -> Sequence[Any]:
        if surplus or words:
            odd = [*(repr(value) for value in surplus), *(f"{word}=" for word in words)]
            raise TypeError(f"{name}() got arguments that it does not take, or takes once: {', '.join(odd)}")
        return ()

    def _options(self, name: str, options: Any, fields: Mapping[str, Any]) -> Any:
        given = {field: value for field, value in fields.items() if value is not None}
        if options is not None:
            if given:
                raise TypeError(f"{name}() takes options or {', '.join(given)}, not both")
            return options
        options = self.kind()
        for field, value in given.items():
            setattr(options, _FIELDS[field], value)
        return options


ALLREDUCE = Form(dist.AllreduceOptions, "tensors|tensor", "op timeout")


def of_allreduce(tensors: Any, **words: Any) -> list[Any]:
    """Return tensors and options of an allreduce, whose arguments are not those of the full form."""
    given = {word: value for word, value in words.items() if value is not None}
    options = given.get("opts")
    if options is not None and not isinstance(options, dist.AllreduceOptions):
        given["op"] = given.pop("opts")
    args = () if tensors is None else (tensors,)
    return ALLREDUCE.full("allreduce", args, given)


def takes(form: Form) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a method, written for the full form, be called in all of them."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        name = method.__name__

        @functools.wraps(method)
        def call(self: Any, *args: Any, **words: Any) -> Any:
            full = args if not words and form.is_full(args) else form.full(name, args, words)
            return modes.seen(self, name, full, method)

        return call

    return decorate


ALLREDUCE_COALESCED = Form(dist.AllreduceCoalescedOptions, "tensors", "op timeout")
BROADCAST = Form(dist.BroadcastOptions, "tensors|tensor", "root timeout")
REDUCE = Form(dist.ReduceOptions, "tensors|tensor", "root op timeout")
ALL_GATHER = Form(AllgatherOptions, "output_tensors input_tensors|input_tensor", "timeout")
ALL_GATHER_SINGLE = Form(AllgatherOptions, "output input", "timeout")
ALL_GATHER_LISTS = Form(AllgatherOptions, "output_lists|outputs input_list|inputs", "timeout")
GATHER = Form(dist.GatherOptions, "output_tensors input_tensors|input_tensor", "root timeout")
SCATTER = Form(dist.ScatterOptions, "output_tensors|output_tensor input_tensors", "root timeout")
REDUCE_SCATTER = Form(dist.ReduceScatterOptions, "output_tensors|output input_tensors|input", "op timeout")
REDUCE_SCATTER_SINGLE = Form(dist.ReduceScatterOptions, "outputTensor|output inputTensor|input", "op timeout")
REDUCE_SCATTER_LISTS = Form(dist.ReduceScatterOptions, "outputs inputs", "op timeout")
ALL_TO_ALL = Form(dist.AllToAllOptions, "output_tensors|output input_tensors|input", "timeout")
ALL_TO_ALL_SINGLE = Form(
    dist.AllToAllOptions, "output input output_split_sizes? input_split_sizes?", "timeout"
)
BARRIER = Form(dist.BarrierOptions, "", "timeout")
SEND = Form(None, "tensors dstRank tag?")
RECV = Form(None, "tensors srcRank tag?")
