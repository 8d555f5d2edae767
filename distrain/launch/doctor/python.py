"""Checks of Python and its libraries: needed ones, image decoders, and optional peers."""

from __future__ import annotations

import platform
import shlex
import sys

import distrain
from distrain.launch.doctor.check import Check, ask_python

_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({"version": torch.__version__, "cuda": cuda, "built_for": torch.version.cuda,
  "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
  "nccl": torch.distributed.is_available() and torch.distributed.is_nccl_available()}))
"""
_NATIVE = """
import json
from distrain.data.decode.native import build_info
built, text = build_info()
print(json.dumps({"built": built, "text": text}))
"""
_EXCHANGE = """
import json
from distrain.comm.native import build_info
built, text = build_info()
print(json.dumps({"built": built, "text": text}))
"""
_CHECKSUM = """
import json
from distrain.data.checksum.native import build_info
built, text = build_info()
print(json.dumps({"built": built, "text": text}))
"""
_TURBOJPEG = """
import json, simplejpeg, cv2
print(json.dumps({"opencv": cv2.__version__}))
"""
_DALI = """
import json, nvidia.dali
print(json.dumps({"version": nvidia.dali.__version__}))
"""
_HOROVOD = """
import json, horovod, horovod.torch
print(json.dumps({"version": horovod.__version__, "mpi": bool(horovod.torch.mpi_built())}))
"""
_DECODER, _WIRE, _CRC = (
    "distrain.data.decode.build_native", "distrain.comm.build_native", "distrain.data.checksum.build_native"
)  # fmt: skip


def _rebuild(builder: str) -> str:
    """Return what builds one of the C libraries in its place, in a checkout and in an installed package."""
    return f"install a C compiler (gcc), then run `{shlex.quote(sys.executable)} -m {builder}`"


def python() -> Check:
    """Look at distrain and Python themselves."""
    facts = {"distrain": distrain.__version__, "python": platform.python_version(), "path": sys.executable}
    found = f"distrain {facts['distrain']}, Python {facts['python']} ({sys.executable})"
    return Check("python", "ok", found, facts=facts)


def torch() -> Check:
    """Look at torch: does it load, and does it see GPUs."""
    facts, reason = ask_python(_TORCH)
    if facts is None:
        return Check("torch", "broken", reason, "install a torch that fits this Python and machine")
    built = f"built for CUDA {facts['built_for']}" if facts["built_for"] else "built for CPU only"
    return Check("torch", "ok", f"{facts['version']}, {built}", facts=facts)


def decoders() -> list[Check]:
    """Look at the image decoders, the fast one and the one that stands in for it."""
    turbo, reason = ask_python(_TURBOJPEG)
    if turbo is None:
        words = "-m pip install --force-reinstall simplejpeg opencv-python-headless"
        do = f"run `{shlex.quote(sys.executable)} {words}`"
        second = Check("decoder turbojpeg", "broken", reason, do)
    else:
        found = f"simplejpeg, OpenCV {turbo['opencv']}"
        second = Check("decoder turbojpeg", "ok", found, facts=turbo)
    native, reason = ask_python(_NATIVE)
    if native is not None and native["built"]:
        first = Check("decoder native", "ok", native["text"], facts=native)
    else:
        reason = native["text"] if native else reason
        do = f"images decode several times slower; {_rebuild(_DECODER)}"
        first = Check("decoder native", "slower", f"not usable: {reason}", do)
    return [first, second]


def exchange() -> Check:
    """Look at the C code of the wire, with which the ranks of a node combine in its memory."""
    return _compiled(
        "exchange in memory", _EXCHANGE, "ranks of a node send messages, driven by Python", _WIRE
    )


def checksums() -> Check:
    """Look at the C code that checks images while they are loaded."""
    return _compiled("checksums", _CHECKSUM, "zlib checks images, and data loads slower", _CRC)


def _compiled(name: str, script: str, without: str, builder: str) -> Check:
    facts, reason = ask_python(script)
    if facts is not None and facts["built"]:
        return Check(name, "ok", facts["text"], facts=facts)
    reason = facts["text"] if facts else reason
    do = f"{without}; {_rebuild(builder)}"
    return Check(name, "slower", f"not usable: {reason}", do)


def peers() -> list[Check]:
    """Look at the optional libraries that distrain can use or is compared with."""
    return [
        _optional("dali", _DALI, "pip install 'distrain[dali]'"),
        _optional("horovod", _HOROVOD, "make horovod, in a checkout"),
    ]


def _optional(name: str, code: str, do: str) -> Check:
    facts, reason = ask_python(code)
    if facts is None:
        return Check(name, "absent", reason, f"optional: {do}")
    return Check(name, "ok", str(facts["version"]), facts=facts)
