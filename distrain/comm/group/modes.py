"""Dispatch modes, and tensors that handle operations themselves, see the collectives of a group.

torch calls a group in Python past its dispatcher, where modes such as `CommDebugMode` listen, and types of
tensors that consist of others, as quantised weights do. Where there are such, a call therefore goes up: to
the base class in C++, which calls the operator of the collective. The operator comes back here, perhaps more
than once and with other tensors, unless a mode has answered in its place, and the group carries the call out.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.distributed as dist

from distrain.comm.device.by_host import TensorTypeError
from distrain.errors import DistrainError

# Operators of torch, in `c10d`, by the methods of a group that call them.
_OPERATORS = {
    "allreduce": "allreduce_",
    "allreduce_coalesced": "allreduce_coalesced_",
    "reduce": "reduce_",
    "reduce_scatter": "reduce_scatter_",
    "reduce_scatter_single": "_reduce_scatter_base_",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced_",
    "broadcast": "broadcast_",
    "allgather": "allgather_",
    "allgather_coalesced": "allgather_coalesced_",
    "all_gather_single": "_allgather_base_",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced_",
    "gather": "gather_",
    "scatter": "scatter_",
    "alltoall": "alltoall_",
    "all_to_all_single": "alltoall_base_",
}
_KEYS = ("CPU", "CUDA", "SparseCPU", "SparseCUDA")

are_on: Callable[[], int] = torch._C._len_torch_dispatch_stack
_pending = threading.local()


class _Pending:
    """A call of a group on its way through the dispatcher."""

    def __init__(self, carry_out: Callable[..., dist.Work]) -> None:
        self.carry_out = carry_out
        self.works: list[dist.Work] = []


def seen(group: Any, name: str, full: Sequence[Any], method: Callable[..., Any]) -> Any:
    """Call a method of a group: past the dispatcher, or through it where something there has to see the call.

    Args:
        group: whose method is called.
        name: of the method; others than collectives are carried out unseen.
        full: its arguments in the full form: tensors, or lists of them, and options.
        method: carries it out; takes the group and these arguments.

    Raises:
        TensorTypeError: a tensor handles operations itself, but did not hand this one on.
    """
    if are_on():
        return _through(group, name, full, method, None)
    try:
        return method(group, *full)
    except TensorTypeError as refused:
        if name not in _OPERATORS:
            raise
        try:
            return _through(group, name, full, method, refused)
        except DistrainError:
            raise
        except Exception as error:
            raise refused from error


def _through(
    group: Any, name: str, full: Sequence[Any], method: Callable[..., Any], refused: TensorTypeError | None
) -> Any:
    """Let the dispatcher see a call, which comes back with its tensors, or with those in them.

    `refused` is raised where it does not come back; None: then a mode's answer counts.
    """
    upwards = _upwards(name)
    if upwards is None:
        return method(group, *full)
    calls = _calls()
    call = _Pending(lambda *tensors: method(group, *tensors, *full[len(tensors) :]))
    calls.append(call)
    try:
        answer = upwards(group, *full)
    finally:
        calls.remove(call)
    if refused is not None and not call.works:  # a FakeTensor does as if
        raise refused
    for work in call.works[:-1]:  # a type of several tensors returns the handle of one
        work.wait()
    return call.works[-1] if call.works else answer


def _tensors_of(name: str) -> int:
    """Return how many arguments of an operator, from the first on, are tensors or lists of them."""
    return 1 if name.rstrip("_") in ("allreduce", "allreduce_coalesced", "broadcast", "reduce") else 2


def _calls() -> list[_Pending]:
    if not hasattr(_pending, "calls"):
        _pending.calls = []
    calls: list[_Pending] = _pending.calls
    return calls


@functools.cache
def _upwards(name: str) -> Any:
    """Return a function that calls the operator for a method; None: there is none that modes could see."""
    base = getattr(dist.ProcessGroup, name, None)
    if name not in _OPERATORS or base is None or not _open():
        return None
    if name in _DIRECT:
        return _DIRECT[name]

    def method(self: Any, *args: Any) -> Any:
        return base(self, *args)

    # C++ would call the method of the group, not its own, did the function that calls not bear its name.
    code = method.__code__.replace(co_name=name)
    return FunctionType(code, method.__globals__, name, None, method.__closure__)


# Three methods C++ knows by two names each, of which a function can bear only one.


def _all_gather_coalesced(group: Any, outputs: Any, inputs: Any, opts: Any) -> Any:
    call = torch.ops.c10d.allgather_into_tensor_coalesced_
    return dist.Work.unbox(call(outputs, inputs, group.boxed(), opts.asyncOp))


def _all_to_all(group: Any, output: Any, input: Any, to: Any, of: Any, opts: Any) -> Any:
    call = torch.ops.c10d.alltoall_base_
    return dist.Work.unbox(call(output, input, group.boxed(), to or [], of or [], opts.asyncOp))


def _reduce_scatter_coalesced(group: Any, outputs: Any, inputs: Any, opts: Any) -> Any:
    op = torch.classes.c10d.ReduceOp()  # a sum: torch makes no other from Python. The group has the true one
    call = torch.ops.c10d.reduce_scatter_tensor_coalesced_
    return dist.Work.unbox(call(outputs, inputs, group.boxed(), op, opts.asyncOp))


_DIRECT = {
    "all_gather_single_coalesced": _all_gather_coalesced,
    "all_to_all_single": _all_to_all,
    "reduce_scatter_single_coalesced": _reduce_scatter_coalesced,
}


@functools.cache
def _open() -> Any:
    """Give the operators kernels that carry out what is pending; all other calls go torch's way.

    Only once a mode is on: torch's own groups pay for it with a detour through Python.
    """
    find = getattr(torch.library, "get_kernel", None)
    if find is None:
        return None  # an older torch
    library = torch.library.Library("c10d", "IMPL")
    for operator in _OPERATORS.values():
        for key in _KEYS:
            try:
                torchs = find(f"c10d::{operator}", key)
            except RuntimeError:
                continue  # it has none
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Warning only once for all operators")
                library.impl(operator, _kernel(operator, torchs), key, with_keyset=True)
    return library  # its end would take the kernels back


def _kernel(operator: str, torchs: Any) -> Callable[..., Any]:
    tensors = _tensors_of(operator)
    gives_tensors = len(getattr(torch.ops.c10d, operator).default._schema.returns) > 1

    def kernel(keys: Any, *args: Any) -> Any:
        calls = _calls()
        if not calls:
            return torchs.call_boxed(keys, *args)
        call = calls.pop()  # what it calls in turn is another
        try:
            work: Any = call.carry_out(*args[:tensors])
        finally:
            calls.append(call)
        call.works.append(work)
        return (args[0], work.boxed()) if gives_tensors else work.boxed()

    return kernel
