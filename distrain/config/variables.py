"""The environment variables that a run reads or is given: the last table of docs/configuration.md."""

from __future__ import annotations

_ROWS = (
    ("`DISTRAIN_MPIRUN`", "the mpirun to use; without it the one beside this Python, then that of `PATH`"),
    ("`DISTRAIN_WORLD_SIZE`", "set by the launcher: ranks that were asked for; another world is an error"),
    (
        "`DISTRAIN_RUN_DIR`",
        "set by the launcher: the run folder; without it rank 0 makes one, and traces go to `./trace`",
    ),
    (
        "`DISTRAIN_RESUME`",
        "set by the launcher: not empty: go on from the newest checkpoint in the run folder",
    ),
    (
        "`DISTRAIN_TERMINAL`",
        "set by the launcher, not under Slurm: 1: someone watches, rank 0 may draw progress bars",
    ),
    (
        "`DISTRAIN_FAULT`",
        "`rank=1,step=3,kind=stall`: break this rank there, for trials; travels to the machines "
        "of a host file",
    ),
    (
        "`DISTRAIN_RANK_PROCESS`",
        "set by a rank for the processes that it starts, so that they are not taken for ranks",
    ),
    (
        "`XDG_CACHE_HOME`",
        "the table of `distrain tune` is `distrain/tune.json` in it; without it in `~/.cache`",
    ),
    (
        "`OMP_NUM_THREADS`",
        "threads of a rank in torch; without it the cores of the machine over its ranks",
    ),
    ("`CUDA_VISIBLE_DEVICES`", "the GPUs that the launcher counts, for `launch.np`"),
    ("`CC`", "the C compiler, at install and for `python -m distrain.comm.build_native` and its like"),
    (
        "`MPI4PY_RC_THREAD_LEVEL`",
        "thread level of MPI; without it `serialized`, with `comm.sync: horovod` `multiple`",
    ),
    ("`TORCH_DEVICE_BACKEND_AUTOLOAD`", "torch's: 0: `import torch` does not make the backend known"),
    (
        "`OMPI_MCA_osc`",
        "set to `^ucx` for Open MPI, unless it is set: its ucx windows fail without a fast network",
    ),
    (
        "`I_MPI_PIN`, `I_MPI_PIN_DOMAIN`, `I_MPI_ROOT`",
        "set for Intel MPI, unless they are set: binding, and where it lies",
    ),
)

_HEAD = """
## Environment variables

Beside the settings. What the launcher sets, it sets for the ranks, on all machines.

| variable | meaning |
|---|---|
"""
_FOOT = """
Which other variables travel to other machines: [launching.md](launching.md#machines-by-ssh). Those by which
MPIs say that they take pointers of GPUs: [wire.md](wire.md#gpu-tensors).
"""


def markdown() -> str:
    """Return the section on environment variables."""
    return _HEAD + "".join(f"| {name} | {text} |\n" for name, text in _ROWS) + _FOOT
