"""Makes the backend known to torch by name. `import torch` runs this: entry point `torch.backends`.

Every Python program of the environment that imports torch pays for what is imported here, so the rest of
the room, and MPI, come when the first group is made.
"""

from __future__ import annotations

from typing import Any

from distrain.comm import backend


def register() -> None:
    """Let `torch.distributed` know the backend."""
    backend.register(_create_group, _rendezvous)


def _create_group(options: Any, backend_options: Any = None) -> Any:
    import distrain.comm.api  # noqa: F401 (ends communication when Python ends)
    from distrain.comm import process_group

    return process_group.create_group(options)


def _rendezvous(*address: Any, **options: Any) -> Any:
    from distrain.comm import api

    return api.rendezvous(*address, **options)
