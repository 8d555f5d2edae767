"""The table of MPIs, compared whole: one expected command line for each MPI and place."""

from __future__ import annotations

import pytest

from distrain.launch.dialects import DIALECTS, command, hostfile_text
from distrain.launch.hosts import Host
from distrain.launch.job import Command, Job
from distrain.launch.mpi import identify, summary

HOSTS = (Host("a", 2), Host("b", 2))
ENV = {"DISTRAIN_RUN_DIR": "/r"}
BANNERS = {
    "openmpi5": ("mpirun (Open MPI) 5.0.11\n\nReport bugs to https://...\n", "mpirun (Open MPI) 5.0.11"),
    "openmpi4": ("mpirun (Open MPI) 4.1.8\n", "mpirun (Open MPI) 4.1.8"),
    "mpich": ("HYDRA build details:\n    Version:          5.0.2\n    CC:   cc\n", "MPICH 5.0.2"),
    "intelmpi": (
        "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 2026\nCopyright\n",
        "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 2026",
    ),
    "srun": ("slurm 22.05.8\n", "slurm 22.05.8"),
}

EXPECTED = {
    ("openmpi5", "local"): "/m/bin/mpirun -np 4 --map-by slot:OVERSUBSCRIBE --bind-to none prog",
    ("openmpi5", "hosts"): "/m/bin/mpirun -np 4 --hostfile /h --map-by slot:OVERSUBSCRIBE --bind-to none "
    "-x DISTRAIN_RUN_DIR -x LD_LIBRARY_PATH -x NCCL_DEBUG prog",
    ("openmpi5", "slurm"): "/m/bin/mpirun -np 4 --map-by ppr:2:node:OVERSUBSCRIBE --bind-to none "
    "-x DISTRAIN_RUN_DIR -x LD_LIBRARY_PATH -x NCCL_DEBUG prog",
    ("openmpi4", "local"): "/m/bin/mpirun -np 4 --oversubscribe --map-by slot --bind-to none prog",
    ("openmpi4", "hosts"): "/m/bin/mpirun -np 4 --prefix /m --hostfile /h --oversubscribe --map-by slot "
    "--bind-to none -x DISTRAIN_RUN_DIR -x LD_LIBRARY_PATH -x NCCL_DEBUG prog",
    ("openmpi4", "slurm"): "/m/bin/mpirun -np 4 --prefix /m --oversubscribe --map-by ppr:2:node "
    "--bind-to none -x DISTRAIN_RUN_DIR -x LD_LIBRARY_PATH -x NCCL_DEBUG prog",
    ("mpich", "local"): "/m/bin/mpirun -np 4 -bind-to none prog",
    ("mpich", "hosts"): "/m/bin/mpirun -np 4 -f /h -bind-to none prog",
    ("mpich", "slurm"): "/m/bin/mpirun -np 4 -ppn 2 -bind-to none prog",
    ("intelmpi", "local"): "/m/bin/mpirun -np 4 prog",
    ("intelmpi", "hosts"): "/m/bin/mpirun -np 4 -machinefile /h prog",
    ("intelmpi", "slurm"): "/m/bin/mpirun -np 4 -bootstrap slurm -ppn 2 prog",
    ("srun", "slurm"): "/m/bin/mpirun --ntasks 4 --ntasks-per-node 2 --kill-on-bad-exit=1 --export=ALL "
    "--cpu-bind=none prog",
}
SET = {
    "openmpi5": {"OMPI_MCA_osc": "^ucx"},
    "openmpi4": {"OMPI_MCA_osc": "^ucx"},
    "mpich": {},
    "intelmpi": {"I_MPI_ROOT": "/m", "I_MPI_PIN": "off"},
    "srun": {"OMPI_MCA_osc": "^ucx"},
}


def build(name: str, environ: dict[str, str] | None = None, prefix: str = "/m", **job: object) -> Command:
    base: dict[str, object] = {"command": ("prog",), "np": 4, "env": ENV, "hostfile": "/h"}
    return command(
        DIALECTS[name], "/m/bin/mpirun", prefix, Job(**{**base, "ranks_per_node": 2, **job}), environ or {}
    )


def test_every_entry_is_covered() -> None:
    assert {(name, place) for name, d in DIALECTS.items() for place in d.places} == set(EXPECTED)


@pytest.mark.parametrize(("name", "place"), EXPECTED)
def test_command_line(name: str, place: str) -> None:
    environ = {"LD_LIBRARY_PATH": "/l", "HOME": "/root", "NCCL_DEBUG": "INFO"}
    built = build(name, environ, place=place)
    assert " ".join(built.argv) == EXPECTED[name, place]
    assert built.env == {**ENV, **SET[name]}


@pytest.mark.parametrize("name", ["openmpi5", "openmpi4"])
def test_a_fault_on_purpose_reaches_other_machines(name: str) -> None:
    built = build(name, {"DISTRAIN_FAULT": "rank=1,step=3,kind=raise"}, place="hosts")
    assert "-x DISTRAIN_FAULT" in " ".join(built.argv)


@pytest.mark.parametrize("name", ["openmpi5", "openmpi4"])
def test_crowded_root_bound_and_extra(name: str) -> None:
    built = build(name, crowded=True, as_root=True, bind="core", extra=("--tag-output",))
    flags = " ".join(built.argv)
    assert flags.endswith(
        "--bind-to core:overload-allowed --mca mpi_yield_when_idle 1 --allow-run-as-root --tag-output prog"
    )


def test_root_and_crowding_need_no_flags_elsewhere() -> None:
    for name in ("mpich", "intelmpi"):
        assert build(name, crowded=True, as_root=True) == build(name)
    assert build("intelmpi", bind="numa").env["I_MPI_PIN_DOMAIN"] == "numa"
    assert "I_MPI_PIN" not in build("intelmpi", bind="numa").env
    assert " ".join(build("mpich", bind="numa").argv) == "/m/bin/mpirun -np 4 -bind-to numa prog"


def test_what_the_user_has_set_stands() -> None:
    assert "OMPI_MCA_osc" not in build("openmpi5", {"OMPI_MCA_osc": "rdma"}).env
    assert build("openmpi5", env={"OMPI_MCA_osc": "sm"}).env["OMPI_MCA_osc"] == "sm"
    assert "I_MPI_ROOT" not in build("intelmpi", {"I_MPI_ROOT": "/opt"}).env


def test_an_unknown_prefix_is_not_invented() -> None:
    assert "--prefix" not in build("openmpi4", prefix="", place="hosts").argv
    assert "I_MPI_ROOT" not in build("intelmpi", prefix="").env


def test_braces_in_paths_are_kept() -> None:
    built = build("openmpi5", place="hosts", hostfile="/a {b}/h", command=("p{np}",))
    assert "/a {b}/h" in built.argv and built.argv[-1] == "p{np}"


@pytest.mark.parametrize("name", BANNERS)
def test_versions_are_told_apart(name: str) -> None:
    banner, line = BANNERS[name]
    assert identify(banner) == name
    assert summary(banner) == line


def test_unknown_mpi() -> None:
    assert identify("mpirun (Open MPI) 3.1.6\n") is None
    assert identify("aprun 1.0\n") is None
    assert summary("") == "unknown"


def test_host_files_in_both_spellings() -> None:
    assert hostfile_text(DIALECTS["openmpi5"], HOSTS) == "a slots=2\nb slots=2\n"
    assert hostfile_text(DIALECTS["mpich"], HOSTS) == "a:2\nb:2\n"


def test_shell_form_quotes() -> None:
    shown = Command(("/a b/mpirun", "-np", "2", "it's"), {"A": "x y", "B": ""}).shell()
    assert shown == "env \\\n  A='x y' \\\n  B='' \\\n  '/a b/mpirun' -np 2 'it'\"'\"'s'"
