"""Is this process a rank, and MPI's world the one that was launched? Pure: environment in, answers out."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from distrain.errors import LaunchError

# Variables in which launchers write how many ranks they started; srun's is one only when
# this process is a task of a step (SLURM_PROCID), not the batch script itself.
_PROMISES = ("DISTRAIN_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")

# A rank notes here who it is, for processes that it starts: they inherit what its launcher told it.
_NOTE = "DISTRAIN_RANK_PROCESS"
# Variables by which launchers tell ranks apart. A rank of another launcher, started inside, has others.
_RANKS = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
_JOBS = ("PMIX_NAMESPACE", "PMI_JOBID", "PMI_FD", "PMI_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")


def note_rank(environment: MutableMapping[str, str], pid: int) -> None:
    """Leave a note in the environment of a rank, by which `parent_rank` knows its children."""
    environment[_NOTE] = f"{pid} {_identity(environment)}"


def parent_rank(environment: Mapping[str, str], pid: int) -> int | None:
    """Return the process id of the rank whose place among the ranks this process has inherited, if it did.

    MPI would take such a process for that rank, and crash. A rank that was launched is none, though a rank
    may have started its launcher, nor is a process that was given an environment without a launcher's words.
    """
    noted, _, identity = environment.get(_NOTE, "").partition(" ")
    if not noted.isdigit() or int(noted) == pid or not identity:
        return None
    return int(noted) if identity == _identity(environment) else None


def _identity(environment: Mapping[str, str]) -> str:
    """Return who the launcher says that this process is; empty where no launcher started it."""
    if not any(name in environment for name in _RANKS):
        return ""
    return " ".join(f"{name}={environment[name]}" for name in (*_RANKS, *_JOBS) if name in environment)


def check_is_rank(environment: Mapping[str, str], pid: int) -> None:
    """Make sure that this process is a rank of its own.

    Raises:
        LaunchError: a rank started it.
    """
    parent = parent_rank(environment, pid)
    if parent is not None:
        raise LaunchError(
            "MPI start-up",
            f"process {pid} was started by a rank (process {parent}) and is none, but has its environment",
            "call it in ranks only: put the script's own course under `if __name__ == '__main__':`, which "
            "processes that multiprocessing starts leave out; or start the process without the variables "
            "of mpirun or srun",
        )


def promised_size(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the variable in which the launcher promised a world size, and that size, if any did."""
    names = list(_PROMISES)
    if "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        names += ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]
    for name in names:
        if environment.get(name, "").isdigit():
            return name, int(environment[name])
    return None


def check_world_size(size: int, environment: Mapping[str, str], library: str) -> None:
    """Compare the world with the launcher's promise.

    A launcher and an MPI library that do not know each other start N worlds of one rank, with
    no error and exit code 0; each would train alone.

    Args:
        size: of MPI's world.
        environment: of this process.
        library: name of the MPI library, for the message.

    Raises:
        LaunchError: the world has another size than the launcher promised.
    """
    promise = promised_size(environment)
    if promise is None or promise[1] == size:
        return
    name, wanted = promise
    raise LaunchError(
        "MPI world",
        f"size={size} but {name}={wanted}: {_launcher(environment)} started {wanted} "
        f"processes and the MPI library of mpi4py ({library}) knows nothing of them",
        "start the job with the mpirun of that library (`distrain doctor` shows which one mpi4py loads), "
        "or under srun choose a matching --mpi, e.g. --mpi=pmix for Open MPI, --mpi=pmi2 for MPICH",
    )


def _launcher(environment: Mapping[str, str]) -> str:
    if "SLURM_PROCID" in environment and "OMPI_COMM_WORLD_SIZE" not in environment:
        return "srun"
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return "an Open MPI mpirun"
    return "an mpirun of the MPICH family" if "PMI_SIZE" in environment else "the launcher"


def host_labels(names: Sequence[str], leaders: Sequence[int]) -> list[str]:
    """Give every rank the name of its node.

    Args:
        names: the host name that each rank reports.
        leaders: the lowest rank among those that share memory with each rank.

    Two nodes may report one name (containers, emulated hosts): they are told apart by their
    leaders, and get ``name``, ``name#1``, ``name#2`` in the order of those.
    """
    labels: dict[int, str] = {}
    seen: dict[str, int] = {}
    for leader in sorted(set(leaders)):
        name = names[leader]
        copies = seen.get(name, 0)
        labels[leader] = name if copies == 0 else f"{name}#{copies}"
        seen[name] = copies + 1
    return [labels[leader] for leader in leaders]
