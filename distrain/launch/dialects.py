"""One table of what each MPI's mpirun wants to be told. Every flag here was run, not only read about.

The environment of the ranks is put into mpirun's own environment. MPICH and Intel MPI pass all of
it on; Open MPI passes nothing to other machines unless each name is listed with ``-x``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from distrain.launch.hosts import Host
from distrain.launch.job import Command, Job

Flags = tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How one MPI is spoken to. Flags may hold ``{np} {file} {per_node} {prefix}``.

    Attributes:
        title: its name for people.
        version: pattern found in the output of ``mpirun --version``.
        np: number of ranks.
        host_line: one line of a host file.
        places: flags by place of the job (``local``, ``hosts``, ``slurm``).
        elsewhere: flags for places other than ``local``, where the prefix is known.
        bind: flags by binding.
        bind_env: environment by binding, for MPIs that are told that way.
        crowded: flags where threads outnumber cores.
        as_root: flags needed when root starts the job.
        env: environment set unless the user has set it.
        lists_env: True if the names of variables must be listed to reach other machines.
        needs_path: True if mpirun finds its other parts only in PATH.
        program: what is started in place of mpirun, from the folder of mpirun.
    """

    title: str
    version: re.Pattern[str]
    np: Flags
    host_line: str
    places: Mapping[str, Flags]
    elsewhere: Flags = ()
    bind: Mapping[str, Flags] = field(default_factory=dict)
    bind_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    crowded: Flags = ()
    as_root: Flags = ()
    env: Mapping[str, str] = field(default_factory=dict)
    lists_env: bool = False
    needs_path: bool = False
    program: str = ""


# An idle rank of Open MPI spins; with more threads than cores it steals the core of the rank that it
# waits for (an allreduce of 100 MB on 2 cores: 13.2 s without, 0.85 s with yielding).
_OPENMPI_YIELD = ("--mca", "mpi_yield_when_idle", "1")

DIALECTS: dict[str, Dialect] = {
    "openmpi5": Dialect(
        title="Open MPI 5",
        version=re.compile(r"\(Open MPI\) (?:[5-9]|\d\d)\."),
        np=("-np", "{np}"),
        host_line="{name} slots={slots}",
        # by slot: ranks of a node stay neighbours. The default (by NUMA domain) and the refusal of more
        # ranks than cores help nobody who has said how many ranks run where.
        places={
            "local": ("--map-by", "slot:OVERSUBSCRIBE"),
            "hosts": ("--hostfile", "{file}", "--map-by", "slot:OVERSUBSCRIBE"),
            "slurm": ("--map-by", "ppr:{per_node}:node:OVERSUBSCRIBE"),
        },
        # without overload-allowed, ranks that share a core end the launch with exit code 213
        bind={
            "none": ("--bind-to", "none"),
            "core": ("--bind-to", "core:overload-allowed"),
            "numa": ("--bind-to", "numa:overload-allowed"),
        },
        crowded=_OPENMPI_YIELD,
        as_root=("--allow-run-as-root",),
        # Shared windows are all that is used of one-sided MPI; the ucx component fails to start on
        # machines without a fast network and prints an error, though the window then works.
        env={"OMPI_MCA_osc": "^ucx"},
        lists_env=True,
    ),
    "openmpi4": Dialect(
        title="Open MPI 4",
        version=re.compile(r"\(Open MPI\) 4\."),
        np=("-np", "{np}"),
        host_line="{name} slots={slots}",
        places={
            "local": ("--oversubscribe", "--map-by", "slot"),
            "hosts": ("--hostfile", "{file}", "--oversubscribe", "--map-by", "slot"),
            "slurm": ("--oversubscribe", "--map-by", "ppr:{per_node}:node"),
        },
        # without it the daemons on other machines do not find their libraries
        # ("ORTE daemon has unexpectedly failed")
        elsewhere=("--prefix", "{prefix}"),
        bind={
            "none": ("--bind-to", "none"),
            "core": ("--bind-to", "core:overload-allowed"),
            "numa": ("--bind-to", "numa:overload-allowed"),
        },
        crowded=_OPENMPI_YIELD,
        as_root=("--allow-run-as-root",),
        env={"OMPI_MCA_osc": "^ucx"},
        lists_env=True,
    ),
    "mpich": Dialect(
        title="MPICH",
        version=re.compile(r"HYDRA build details"),
        np=("-np", "{np}"),
        host_line="{name}:{slots}",
        places={"local": (), "hosts": ("-f", "{file}"), "slurm": ("-ppn", "{per_node}")},
        bind={
            "none": ("-bind-to", "none"),
            "core": ("-bind-to", "core"),
            "numa": ("-bind-to", "numa"),
        },
    ),
    "intelmpi": Dialect(
        title="Intel MPI",
        version=re.compile(r"Intel\(R\) MPI Library"),
        np=("-np", "{np}"),
        host_line="{name}:{slots}",
        places={
            "local": (),
            # -f takes the names and fills each machine with as many ranks as it has cores
            "hosts": ("-machinefile", "{file}"),
            "slurm": ("-bootstrap", "slurm", "-ppn", "{per_node}"),
        },
        # pinned by default: all threads of a rank would share its domain
        bind_env={
            "none": {"I_MPI_PIN": "off"},
            "core": {"I_MPI_PIN_DOMAIN": "core"},
            "numa": {"I_MPI_PIN_DOMAIN": "numa"},
        },
        env={"I_MPI_ROOT": "{prefix}"},
        needs_path=True,  # mpirun is a script that calls mpiexec.hydra
        # A signal would end the script alone, and leave a job that nobody can stop any more.
        program="mpiexec.hydra",
    ),
    "srun": Dialect(
        title="Slurm's srun",
        version=re.compile(r"^slurm "),
        np=("--ntasks", "{np}"),
        host_line="",
        # kill-on-bad-exit: one failed rank ends the job instead of leaving the others waiting
        places={"slurm": ("--ntasks-per-node", "{per_node}", "--kill-on-bad-exit=1", "--export=ALL")},
        bind={
            "none": ("--cpu-bind=none",),
            "core": ("--cpu-bind=cores",),
            "numa": ("--cpu-bind=ldoms",),
        },
        env={"OMPI_MCA_osc": "^ucx"},
    ),
}


def hostfile_text(dialect: Dialect, hosts: tuple[Host, ...]) -> str:
    """Return the host file in the dialect's spelling."""
    return "".join(dialect.host_line.format(name=h.name, slots=h.slots) + "\n" for h in hosts)


def command(dialect: Dialect, starter: str, prefix: str, job: Job, environ: Mapping[str, str]) -> Command:
    """Build the command line that starts a job.

    Args:
        dialect: an entry of `DIALECTS`.
        starter: path of mpirun (or srun).
        prefix: folder of the MPI installation (above ``bin/``), empty if it is not known here.
        job: what is started.
        environ: the environment that the command will be run in; what it sets is left alone.

    Returns:
        The arguments, and the variables to add to ``environ``.
    """
    fill = {"np": job.np, "file": job.hostfile, "per_node": job.ranks_per_node, "prefix": prefix}
    env = dict(job.env)
    for name, value in {**dialect.env, **dialect.bind_env.get(job.bind, {})}.items():
        if name not in environ and name not in env and (prefix or "{prefix}" not in value):
            env[name] = value.format(**fill)
    elsewhere = dialect.elsewhere if prefix and job.place != "local" else ()
    flags = [flag.format(**fill) for flag in (*dialect.np, *elsewhere, *dialect.places[job.place])]
    flags += dialect.bind.get(job.bind, ())
    flags += dialect.crowded if job.crowded else ()
    flags += dialect.as_root if job.as_root else ()
    if dialect.lists_env and job.place != "local":
        flags += [part for name in _travelling(env, environ) for part in ("-x", name)]
    return Command((starter, *flags, *job.extra, *job.command), env)


def _travelling(env: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that ranks on other machines need, sorted."""
    inherited = [
        name
        for name in environ
        if name in ("LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS", "DISTRAIN_FAULT")
        or name.startswith(("NCCL_", "UCX_", "MPI4PY_"))
    ]
    # OMPI_MCA_* is passed on by mpirun itself
    return sorted({name for name in (*env, *inherited) if not name.startswith("OMPI_MCA_")})
