"""torch.compile and groups: a compiled function breaks at a method of a group, which runs as it is.

torch's compiler would otherwise follow Python into the method, as far as locks and calls of C. Its own
decorator `torch.compiler.disable` costs microseconds a call; what is done here costs nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed import device_mesh

try:  # inside of torch, without which its compiler cannot be told; it may change
    from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy
    from torch._library.opaque_object import MemberType, get_opaque_obj_info, register_opaque_type
except ImportError:
    _CAN = False
else:
    _CAN = True

# What the compiler may ask while it traces, and take for a constant.
_CONSTANTS = ("name", "_device_types")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def untraced(function: _Function) -> _Function:
    """Have torch's compiler break before this function, and leave it and all that it calls alone."""
    if _CAN:
        function._torchdynamo_disable = True  # type: ignore[attr-defined]
        function._torchdynamo_disable_msg = "it communicates"  # type: ignore[attr-defined]
        skip = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)
        set_code_exec_strategy(function.__code__, skip)
    return function


def leave_untraced(kind: type) -> None:
    """Do that with every method that distrain gives a class."""
    for _, value in _members(kind):
        if isinstance(value, FunctionType):
            untraced(value)
        elif isinstance(value, property) and isinstance(value.fget, FunctionType):
            untraced(value.fget)


def open_to_compiler(kind: type[dist.ProcessGroup]) -> None:
    """Let compiled functions name the methods of a kind of group; those of torch's own they cannot."""
    if not _CAN:
        return
    register = getattr(device_mesh, "_register_distributed_opaque_types", None)
    if register is not None:
        register()
    known = get_opaque_obj_info(dist.ProcessGroup)
    if known is None:
        return  # a torch whose compiler treats groups as any object
    members = {name: MemberType.INLINED for name, value in _members(kind) if inspect.isfunction(value)}
    constants = dict.fromkeys(_CONSTANTS, MemberType.USE_REAL)
    register_opaque_type(kind, typ="reference", members={**members, **known.members, **constants})


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for one in kind.__mro__:
        if one.__module__.startswith("distrain."):
            yield from vars(one).items()
